//! The progress bar of a backtest: simulated date, share, time left and rate.

use std::{fmt::Write, time::Duration};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::model::{Ts, time::DAY_MS};

/// A bar over simulated seconds; without a known end it has no share and no time left.
pub fn bar(start: Ts, to: Option<Ts>) -> ProgressBar {
    let (bar, template) = match to {
        Some(to) => {
            let seconds = to.since_ms(start).max(0) as u64 / 1_000;
            (ProgressBar::new(seconds), "{msg} {wide_bar} {percent}% eta {eta} ({rate})")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {msg} after {elapsed} ({rate})"),
    };
    // The templates are constants that parse; a wrong one would only cost the looks.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        let _ = out.write_str(&rate(state.per_sec()));
    }));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Simulated seconds a second as simulated days a second.
fn rate(per_second: f64) -> String {
    format!("{:.2} simulated days/s", per_second / (DAY_MS / 1_000) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_in_days_and_named_once() {
        assert_eq!(rate(190_640.0), "2.21 simulated days/s");
        assert_eq!(rate(0.0), "0.00 simulated days/s");
    }
}
