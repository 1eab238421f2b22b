//! `equity.svg`: equity with trade marks above, drawdown below; halted stretches are shaded in both.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use plotters::prelude::*;

use crate::model::Ts;

/// A closed position as the picture marks it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// When it was closed.
    pub at: Ts,
    /// Account currency.
    pub net: f64,
}

/// Draws at most this many points of the curve; more are thinned evenly.
const POINTS_MAX: usize = 4_000;
const INK: RGBColor = RGBColor(31, 41, 55);
const MUTED: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(229, 231, 235);
const LINE: RGBColor = RGBColor(37, 99, 235);
const FALL: RGBColor = RGBColor(220, 38, 38);
const GAIN: RGBColor = RGBColor(22, 163, 74);
/// Behind everything: trading was halted.
const HALTED: RGBColor = RGBColor(254, 243, 199);

/// Writes the picture.
///
/// # Errors
/// When the curve is empty or the file cannot be written; the message names the file.
pub fn draw(path: &Path, title: &str, curve: &[(Ts, f64)], marks: &[Mark], halted: &[(Ts, Ts)]) -> Result<()> {
    draw_to(path, title, curve, marks, halted).with_context(|| format!("cannot draw {}", path.display()))
}

fn draw_to(path: &Path, title: &str, curve: &[(Ts, f64)], marks: &[Mark], halted: &[(Ts, Ts)]) -> Result<()> {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else {
        return Err(anyhow!("there is no equity to draw; the window holds no candles"));
    };
    let step = curve.len().div_ceil(POINTS_MAX).max(1);
    let mut points: Vec<(DateTime<Utc>, f64)> = curve.iter().step_by(step).map(|(at, v)| (at.utc(), *v)).collect();
    points.push((last.0.utc(), last.1));
    let end = if last.0 > first.0 { last.0 } else { first.0.plus_ms(60_000) };
    let range = first.0.utc()..end.utc();
    let low = points.iter().map(|p| p.1).fold(f64::MAX, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
    let pad = ((high - low) * 0.08).max(high.abs() * 0.001).max(1.0);

    let root = SVGBackend::new(path, (1200, 720)).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, bottom) = root.split_vertically(500);
    let text = |size: i32, colour: &RGBColor| ("sans-serif", size).into_font().color(colour);
    let spent_days = (end.since_ms(first.0) as f64 / 86_400_000.0).max(0.0);
    let format = if spent_days > 3.0 { "%Y-%m-%d" } else { "%m-%d %H:%M" };

    let shade = |low: f64, high: f64| {
        let inside = halted.iter().map(|(from, to)| ((*from).max(first.0), (*to).min(end)));
        let shown: Vec<_> = inside.filter(|(from, to)| from < to).collect();
        shown.into_iter().map(move |(from, to)| Rectangle::new([(from.utc(), low), (to.utc(), high)], HALTED.filled()))
    };
    let mut chart = ChartBuilder::on(&top)
        .margin(16)
        .margin_right(36)
        .caption(title, ("sans-serif", 22).into_font().color(&INK))
        .x_label_area_size(28)
        .y_label_area_size(90)
        .build_cartesian_2d(range.clone(), (low - pad)..(high + pad))?;
    chart.draw_series(shade(low - pad, high + pad))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(8)
        .y_labels(8)
        .label_style(text(14, &MUTED))
        .x_label_formatter(&|at| at.format(format).to_string())
        .y_label_formatter(&|value| format!("{value:.2}"))
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), LINE.stroke_width(2)))?;
    let equity_at =
        |at: Ts| curve.get(curve.partition_point(|p| p.0 < at).min(curve.len() - 1)).map_or(first.1, |p| p.1);
    chart.draw_series(marks.iter().map(|mark| {
        let colour = if mark.net > 0.0 { GAIN } else { FALL };
        Circle::new((mark.at.utc(), equity_at(mark.at)), 4, colour.mix(0.8).filled())
    }))?;

    let mut peak = f64::MIN;
    let falls: Vec<(DateTime<Utc>, f64)> = points
        .iter()
        .map(|(at, value)| {
            peak = peak.max(*value);
            (*at, if peak > 0.0 { (value - peak) / peak * 100.0 } else { 0.0 })
        })
        .collect();
    let worst = falls.iter().map(|f| f.1).fold(0.0, f64::min).min(-0.01);
    let mut chart = ChartBuilder::on(&bottom)
        .margin(16)
        .margin_right(36)
        .caption(
            if halted.is_empty() { "drawdown, percent" } else { "drawdown, percent; shaded: halted" },
            ("sans-serif", 15).into_font().color(&MUTED),
        )
        .x_label_area_size(28)
        .y_label_area_size(90)
        .build_cartesian_2d(range, (worst * 1.1)..0.0)?;
    chart.draw_series(shade(worst * 1.1, 0.0))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(8)
        .y_labels(4)
        .label_style(text(14, &MUTED))
        .x_label_formatter(&|at| at.format(format).to_string())
        .y_label_formatter(&|value| format!("{value:.1}"))
        .draw()?;
    chart.draw_series(AreaSeries::new(falls, 0.0, FALL.mix(0.25)).border_style(FALL.stroke_width(1)))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_holds_curve_marks_and_drawdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("equity.svg");
        let curve: Vec<(Ts, f64)> =
            (0..500).map(|i| (Ts(i * 3_600_000), 10_000.0 + (i as f64 / 9.0).sin() * 50.0)).collect();
        draw(&path, "test", &curve, &[Mark { at: Ts(36_000_000), net: 5.0 }], &[]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("polyline") && svg.contains("circle") && svg.contains("drawdown"));
        assert!(!svg.contains("#FEF3C7"), "nothing was halted");
        let halted = [(Ts(100 * 3_600_000), Ts(150 * 3_600_000)), (Ts(400 * 3_600_000), Ts(900 * 3_600_000))];
        draw(&path, "test", &curve, &[], &halted).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert_eq!(svg.matches("#FEF3C7").count(), 4, "two stretches in both charts");
    }

    #[test]
    fn an_empty_curve_is_an_error_with_the_file_name() {
        let error = draw(Path::new("equity.svg"), "t", &[], &[], &[]).unwrap_err();
        assert!(format!("{error:#}").contains("equity.svg"));
    }
}
