//! Panels above one another that share an axis: curves, steps and stacked bars.

use super::{Svg, WIDTH, readable};

const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const PANEL: f64 = 190.0;
const GAP: f64 = 44.0;
/// Points of a curve that are drawn: more than there are pixels says no more.
const POINTS_MAX: usize = 1200;

/// A picture.
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// The same for who cannot see it.
    pub description: &'a str,
    /// What the shared axis shows, with its unit.
    pub x: &'a str,
    /// How the shared axis is divided.
    pub scale: Scale,
    /// From top to bottom.
    pub panels: Vec<Panel<'a>>,
}

/// How an axis is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By factors; values that are not positive are left out.
    Log,
}

/// Values over the shared axis, from 0.
pub struct Panel<'a> {
    /// What its axis shows, with its unit.
    pub y: &'a str,
    /// What is drawn; first ones below.
    pub series: Vec<Series<'a>>,
}

/// One curve, or one colour of stacked bars.
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// How it is drawn.
    pub form: Form,
    /// Number of its colour, of ten.
    pub colour: usize,
    /// By x, in order.
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    /// Straight from point to point.
    Line,
    /// The value holds until the next point.
    Step,
    /// Bars this wide, on top of those of the series before that have the same x.
    Bars(f64),
}

impl Chart<'_> {
    /// Draws it.
    #[must_use]
    pub fn svg(&self) -> String {
        let plotted = self.panels.iter().map(|panel| legend_rows(&panel.series));
        let height = 40.0
            + plotted
                .map(|rows| rows * 18.0 + 12.0 + PANEL + GAP)
                .sum::<f64>();
        let mut svg = Svg::begin(self.title, self.description, height);
        let x = Axis::over(self.xs(), self.scale, LEFT, WIDTH - RIGHT).until_the_end(self.xs());
        let mut top = 40.0;
        for panel in &self.panels {
            let named = panel.series.iter().map(|one| (one.name, one.colour));
            top += svg.legend(named, top);
            top += 12.0;
            draw(&mut svg, panel, &x, top);
            let (bottom, middle) = (top + PANEL, (LEFT + WIDTH - RIGHT) / 2.0);
            for tick in x.ticks() {
                let at = (x.at(tick), bottom + 15.0);
                svg.text(at, "middle", "soft", &readable(tick));
            }
            svg.text((middle, bottom + 31.0), "middle", "soft", self.x);
            top = bottom + GAP;
        }
        svg.end()
    }

    fn xs(&self) -> impl Iterator<Item = f64> {
        let series = self.panels.iter().flat_map(|panel| &panel.series);
        series.flat_map(|one| {
            let width = match one.form {
                Form::Bars(width) => width,
                _ => 0.0,
            };
            one.points.iter().flat_map(move |(x, _)| [*x, x + width])
        })
    }
}

fn draw(svg: &mut Svg, panel: &Panel<'_>, x: &Axis, top: f64) {
    let (bottom, right) = (top + PANEL, WIDTH - RIGHT);
    let y = Axis::over(
        heights(&panel.series).into_iter(),
        Scale::Linear,
        bottom,
        top + 8.0,
    );
    for tick in y.ticks() {
        let at = y.at(tick);
        svg.stroke((LEFT, at), (right, at), "grid");
        svg.text((LEFT - 8.0, at + 4.0), "end", "soft", &readable(tick));
    }
    for tick in x.ticks() {
        svg.stroke((x.at(tick), bottom), (x.at(tick), bottom + 4.0), "axis");
    }
    let mut base: Vec<(f64, f64)> = Vec::new();
    for one in &panel.series {
        match one.form {
            Form::Bars(width) => {
                for (at, value) in &one.points {
                    let below = base.iter_mut().find(|(x, _)| x == at);
                    let from = below.as_ref().map_or(0.0, |(_, height)| *height);
                    match below {
                        Some((_, height)) => *height += value,
                        None => base.push((*at, *value)),
                    }
                    if *value > 0.0 {
                        let (left, high) = (x.at(*at), y.at(from + value));
                        let wide = (x.at(at + width) - left - 1.0).max(0.6);
                        svg.rect((left, high), (wide, y.at(from) - high), one.colour);
                    }
                }
            }
            Form::Line | Form::Step => curve(svg, one, x, &y),
        }
    }
    svg.stroke((LEFT, bottom), (right, bottom), "axis");
    svg.text((LEFT, top), "start", "soft", panel.y);
}

fn curve(svg: &mut Svg, series: &Series<'_>, x: &Axis, y: &Axis) {
    let usable: Vec<_> = series
        .points
        .iter()
        .filter(|(at, value)| x.holds(*at) && value.is_finite())
        .collect();
    let every = usable.len().div_ceil(POINTS_MAX).max(1);
    let last = usable.len().saturating_sub(1);
    let mut path = String::new();
    let mut before = None;
    for (number, (at, value)) in usable.into_iter().enumerate() {
        if number % every != 0 && number != last {
            continue;
        }
        let (across, up) = (x.at(*at), y.at(*value));
        match before {
            None => path.push_str(&format!("M{across:.1} {up:.1}")),
            Some(earlier) if series.form == Form::Step => {
                path.push_str(&format!("L{across:.1} {earlier:.1}L{across:.1} {up:.1}"));
            }
            Some(_) => path.push_str(&format!("L{across:.1} {up:.1}")),
        }
        before = Some(up);
    }
    let colour = series.colour % super::COLOURS.len();
    svg.line(&format!(r#"<path class="curve s{colour}" d="{path}"/>"#));
}

/// Heights that a panel must hold, stacked where they are.
fn heights(series: &[Series<'_>]) -> Vec<f64> {
    let mut stacked: Vec<(f64, f64)> = Vec::new();
    let mut heights = vec![0.0];
    for one in series {
        for (at, value) in one.points.iter().filter(|(_, value)| value.is_finite()) {
            if matches!(one.form, Form::Bars(_)) {
                match stacked.iter_mut().find(|(x, _)| x == at) {
                    Some((_, height)) => *height += value,
                    None => stacked.push((*at, *value)),
                }
            } else {
                heights.push(*value);
            }
        }
    }
    heights.extend(stacked.into_iter().map(|(_, height)| height));
    heights
}

fn legend_rows(series: &[Series<'_>]) -> f64 {
    let long: usize = series.iter().map(|one| one.name.chars().count() + 5).sum();
    (long as f64 * 6.6 / (WIDTH - 32.0)).ceil().max(1.0)
}

/// Where values are between two places.
struct Axis {
    scale: Scale,
    /// Least and most value.
    values: (f64, f64),
    places: (f64, f64),
    step: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let usable = values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0));
        let (least, most) = usable.fold((f64::INFINITY, 0.0_f64), |(least, most), v| {
            (least.min(v), most.max(v))
        });
        let most = if most > 0.0 { most } else { 1.0 };
        let (values, step) = match scale {
            Scale::Linear => {
                let step = nice(most / 5.0);
                ((0.0, (most / step).ceil() * step), step)
            }
            Scale::Log => {
                let least = least.min(most);
                let decade = |v: f64| 10_f64.powf(v);
                let low = least.log10().floor();
                (
                    (decade(low), decade(most.log10().ceil().max(low + 1.0))),
                    0.0,
                )
            }
        };
        Self {
            scale,
            values,
            places: (from, to),
            step,
        }
    }

    /// The same axis, ending with the last value rather than at a round one; of those by factors none.
    fn until_the_end(mut self, values: impl Iterator<Item = f64>) -> Self {
        let end = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
        if self.scale == Scale::Linear && end > 0.0 {
            self.values.1 = end;
        }
        self
    }

    fn holds(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    fn at(&self, value: f64) -> f64 {
        let (least, most) = self.values;
        let part = match self.scale {
            Scale::Linear => (value - least) / (most - least),
            Scale::Log => (value / least).ln() / (most / least).ln(),
        };
        self.places.0 + part * (self.places.1 - self.places.0)
    }

    fn ticks(&self) -> Vec<f64> {
        let (least, most) = self.values;
        let mut ticks = Vec::new();
        match self.scale {
            Scale::Linear => {
                let mut number = 0;
                // 5 steps by design, 10 at most by the rounding of `nice`.
                while f64::from(number) * self.step <= most * (1.0 + 1e-9) {
                    ticks.push(f64::from(number) * self.step);
                    number += 1;
                }
            }
            Scale::Log => {
                let few = (most / least).log10() <= 4.5;
                let mut decade = least;
                while decade <= most * 1.001 {
                    ticks.push(decade);
                    if few {
                        let between = [2.0, 5.0].map(|times| decade * times);
                        ticks.extend(between.into_iter().filter(|tick| *tick < most));
                    }
                    decade *= 10.0;
                }
            }
        }
        ticks
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter();
    let fits = times
        .map(|times| times * power)
        .find(|nice| *nice >= step * 0.999);
    fits.unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_round_numbers_that_hold_all() {
        let axis = Axis::over([3.0, 47.0].into_iter(), Scale::Linear, 0.0, 100.0);
        assert_eq!(axis.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(
            (axis.at(0.0), axis.at(25.0), axis.at(50.0)),
            (0.0, 50.0, 100.0)
        );
        let values = [3.0, 47.0].into_iter();
        let axis = Axis::over(values.clone(), Scale::Linear, 0.0, 47.0).until_the_end(values);
        assert_eq!(axis.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(axis.at(47.0), 47.0);
        let axis = Axis::over([0.0, 3.0, 47.0].into_iter(), Scale::Log, 0.0, 100.0);
        assert_eq!(
            (axis.at(1.0), axis.at(10.0), axis.at(100.0)),
            (0.0, 50.0, 100.0)
        );
        assert!(axis.ticks().contains(&20.0));
    }

    #[test]
    fn bars_stand_on_one_another() {
        let bars = |name, colour, value| Series {
            name,
            form: Form::Bars(1.0),
            colour,
            points: vec![(0.0, value)],
        };
        let chart = Chart {
            title: "t",
            description: "d",
            x: "s",
            scale: Scale::Linear,
            panels: vec![Panel {
                y: "n",
                series: vec![bars("a", 0, 3.0), bars("b", 1, 1.0)],
            }],
        };
        let svg = chart.svg();
        let rect = |colour: &str| {
            let line = svg.lines().rfind(|line| line.contains(colour)).unwrap();
            let number = |name: &str| -> f64 {
                let from = line.split(&format!(" {name}=\"")).nth(1).unwrap();
                from.split('"').next().unwrap().parse().unwrap()
            };
            (number("y"), number("height"))
        };
        let (below, above) = (rect(r#"class="f0""#), rect(r#"class="f1""#));
        assert!((above.0 + above.1 - below.0).abs() < 0.2, "{svg}");
        assert!((below.1 / above.1 - 3.0).abs() < 0.02, "{svg}");
    }

    #[test]
    fn nothing_to_show_is_still_a_picture() {
        for scale in [Scale::Linear, Scale::Log] {
            let series = Series {
                name: "none",
                form: Form::Step,
                colour: 0,
                points: vec![(f64::NAN, 1.0), (-1.0, f64::INFINITY)],
            };
            let chart = Chart {
                title: "t",
                description: "d",
                x: "s",
                scale,
                panels: vec![Panel {
                    y: "n",
                    series: vec![series],
                }],
            };
            let svg = chart.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
