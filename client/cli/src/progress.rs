//! Bars for long work: on standard error, and only when that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over bytes; `label` says what happens to them.
pub(crate) fn bytes(label: &'static str) -> ProgressBar {
    // Hidden by itself when standard error is not a terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "{msg:>10} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label);
    bar
}

/// Moves a bar to `done` of `total` bytes.
pub(crate) fn advance(bar: &ProgressBar) -> impl FnMut(u64, u64) {
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    }
}

/// A bar over things that are counted; hidden while there is only one.
pub(crate) fn count(label: &'static str, total: usize) -> ProgressBar {
    let target = if total > 1 {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let style = "{msg:>10} [{wide_bar}] {pos}/{len} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label);
    bar
}

/// A spinner for work whose length nobody knows.
pub(crate) fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
