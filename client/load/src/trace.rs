//! Who asks which model when.

use std::fmt::Write as _;
use std::time::Duration;

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arrival {
    /// When it should be sent, since the trace's beginning; whole microseconds.
    pub at: Duration,
    /// Index into [`Trace::models`].
    pub model: usize,
    /// Who asks, from 0.
    pub caller: usize,
}

/// Requests in the order of their times.
///
/// Always true: sorted by time, then model, then caller; every arrival is before [`span`](Self::span) and names a model that
/// there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    models: Vec<String>,
    span: Duration,
    arrivals: Vec<Arrival>,
}

impl Trace {
    /// Sorts the arrivals; those at or after `span`, or of a model that there is not, are left out.
    #[must_use]
    pub fn new(models: Vec<String>, span: Duration, mut arrivals: Vec<Arrival>) -> Self {
        arrivals.retain(|arrival| arrival.at < span && arrival.model < models.len());
        arrivals.sort_unstable();
        Self {
            models,
            span,
            arrivals,
        }
    }

    /// Names of the models.
    #[must_use]
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// How long it lasts; the last arrival is before its end.
    #[must_use]
    pub const fn span(&self) -> Duration {
        self.span
    }

    /// The requests, first ones first.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// How many callers there are, those who never ask included: one more than the highest number.
    #[must_use]
    pub fn callers(&self) -> usize {
        let highest = self.arrivals.iter().map(|arrival| arrival.caller + 1);
        highest.max().unwrap_or(0)
    }

    /// The same requests in other time: 60 makes a minute of a second, 1/60 a second of a minute.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |time: Duration| micros(time.as_secs_f64() * factor.max(0.0));
        let arrivals = self.arrivals.iter().map(|arrival| Arrival {
            at: scale(arrival.at),
            ..*arrival
        });
        // Two that were apart may now be together: sorted again.
        Self::new(self.models.clone(), scale(self.span), arrivals.collect())
    }

    /// `at_us,model,caller`, one line a request; a model's name in quotes where it holds a comma or a quote.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = String::from("at_us,model,caller\n");
        for arrival in &self.arrivals {
            let name = quoted(&self.models[arrival.model]);
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{},{name},{}", arrival.at.as_micros(), arrival.caller);
        }
        csv
    }
}

/// Seconds as whole microseconds, cut; nothing for less than none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast stops at the ends"
)]
pub(crate) fn micros(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6) as u64)
}

fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(at: u64, model: usize, caller: usize) -> Arrival {
        let at = Duration::from_micros(at);
        Arrival { at, model, caller }
    }

    #[test]
    fn what_is_late_or_of_no_model_is_left_out_and_the_rest_sorted() {
        let span = Duration::from_micros(10);
        let arrivals = [(9, 1, 0), (10, 0, 0), (3, 2, 0), (3, 0, 7)]
            .map(|(at, model, caller)| arrival(at, model, caller));
        let trace = Trace::new(vec!["a".into(), "b".into()], span, arrivals.to_vec());
        assert_eq!(trace.arrivals(), [arrival(3, 0, 7), arrival(9, 1, 0)]);
        assert_eq!(trace.callers(), 8);
    }

    #[test]
    fn scaled_twice_as_long_every_gap_is() {
        let models = vec!["a".into()];
        let arrivals = vec![arrival(1, 0, 0), arrival(4, 0, 1)];
        let trace = Trace::new(models, Duration::from_micros(5), arrivals).scaled(2.0);
        assert_eq!(trace.arrivals(), [arrival(2, 0, 0), arrival(8, 0, 1)]);
        assert_eq!(trace.span(), Duration::from_micros(10));
    }

    #[test]
    fn a_table_names_models_safely() {
        let models = vec!["a,\"b\"".into()];
        let trace = Trace::new(models, Duration::from_secs(1), vec![arrival(7, 0, 2)]);
        let csv = trace.to_csv();
        assert_eq!(csv, "at_us,model,caller\n7,\"a,\"\"b\"\"\",2\n");
    }
}
