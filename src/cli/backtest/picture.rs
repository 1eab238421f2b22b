//! `equity.svg`: equity with trade marks above, drawdown below; stretches in which the program did not trade are shaded
//! in both, because what the curve does there is the market's doing.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use plotters::{coord::Shift, prelude::*};

use crate::model::{CoordinatorState, Ts};

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
/// Behind everything: entries were refused.
const PAUSED: RGBColor = RGBColor(243, 244, 246);
/// Behind everything: trading was halted.
const HALTED: RGBColor = RGBColor(254, 243, 199);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Point = (DateTime<Utc>, f64);
/// From, to, and what shades it.
type Stretch = (Ts, Ts, RGBColor);

/// Writes the picture. `changes` is what the coordinator's state became, oldest first; it was RUNNING before.
///
/// # Errors
/// When the curve is empty or the file cannot be written; the message names the file.
pub fn draw(
    path: &Path,
    title: &str,
    curve: &[(Ts, f64)],
    marks: &[Mark],
    changes: &[(Ts, CoordinatorState)],
) -> Result<()> {
    draw_to(path, title, curve, marks, changes).with_context(|| format!("cannot draw {}", path.display()))
}

/// The stretches of `changes` that are not RUNNING, within the curve.
fn stretches(changes: &[(Ts, CoordinatorState)], first: Ts, last: Ts) -> Vec<Stretch> {
    let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([last]);
    let shaded = changes.iter().zip(ends).filter_map(|((from, state), to)| {
        let colour = match state {
            CoordinatorState::Running => return None,
            CoordinatorState::Paused => PAUSED,
            CoordinatorState::Halted => HALTED,
        };
        Some(((*from).max(first), to.min(last), colour))
    });
    shaded.filter(|(from, to, _)| from < to).collect()
}

fn draw_to(
    path: &Path,
    title: &str,
    curve: &[(Ts, f64)],
    marks: &[Mark],
    changes: &[(Ts, CoordinatorState)],
) -> Result<()> {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else {
        return Err(anyhow!("there is no equity to draw; the window holds no candles"));
    };
    let step = curve.len().div_ceil(POINTS_MAX).max(1);
    let mut points: Vec<Point> = curve.iter().step_by(step).map(|(at, v)| (at.utc(), *v)).collect();
    points.push((last.0.utc(), last.1));
    let end = if last.0 > first.0 { last.0 } else { first.0.plus_ms(60_000) };
    let shaded = stretches(changes, first.0, end);
    let low = points.iter().map(|p| p.1).fold(f64::MAX, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
    let pad = ((high - low) * 0.08).max(high.abs() * 0.001).max(1.0);

    let root = SVGBackend::new(path, (1200, 740)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, charts) = root.split_vertically(72);
    let (top, bottom) = charts.split_vertically(440);
    head.draw(&Text::new(title, (90, 16), ("sans-serif", 20).into_font().color(&INK)))?;
    legend(&head, marks, &shaded)?;

    let frame = Frame { from: first.0, to: end, low: low - pad, high: high + pad, y_labels: 8, shaded: &shaded };
    frame.draw(&top, "", |chart| {
        let begin = [(first.0.utc(), first.1), (end.utc(), first.1)];
        chart.draw_series(LineSeries::new(begin, MUTED.stroke_width(1)))?;
        chart.draw_series(LineSeries::new(points.iter().copied(), LINE.stroke_width(2)))?;
        let equity_at =
            |at: Ts| curve.get(curve.partition_point(|p| p.0 < at).min(curve.len() - 1)).map_or(first.1, |p| p.1);
        for mark in marks {
            let (place, colour) = ((mark.at.utc(), equity_at(mark.at)), colour_of(mark));
            chart.draw_series([Circle::new(place, 5, WHITE.filled()), Circle::new(place, 4, colour.filled())])?;
        }
        Ok(())
    })?;

    let mut peak = f64::MIN;
    let falls: Vec<Point> = points
        .iter()
        .map(|(at, value)| {
            peak = peak.max(*value);
            (*at, if peak > 0.0 { (value - peak) / peak * 100.0 } else { 0.0 })
        })
        .collect();
    let worst = falls.iter().map(|f| f.1).fold(0.0, f64::min).min(-0.01);
    let frame = Frame { low: worst * 1.1, high: 0.0, y_labels: 4, ..frame };
    frame.draw(&bottom, "drawdown, percent", |chart| {
        chart.draw_series(AreaSeries::new(falls, 0.0, FALL.mix(0.25)).border_style(FALL.stroke_width(1)))?;
        Ok(())
    })?;
    root.present()?;
    Ok(())
}

fn colour_of(mark: &Mark) -> RGBColor {
    if mark.net > 0.0 { GAIN } else { FALL }
}

/// What the colours mean, as far as they occur.
fn legend(area: &Area<'_>, marks: &[Mark], shaded: &[Stretch]) -> Result<()> {
    let occurs = |colour: RGBColor| shaded.iter().any(|stretch| stretch.2 == colour);
    let marked = |colour: RGBColor| marks.iter().any(|mark| colour_of(mark) == colour);
    let entries = [
        (true, LINE, "equity, every holding at its price", 250),
        (marked(GAIN), GAIN, "closed with a gain", 150),
        (marked(FALL), FALL, "closed with a loss", 150),
        (occurs(PAUSED), PAUSED, "PAUSED: no entries, stops go on", 240),
        (occurs(HALTED), HALTED, "HALTED until reset: stops only, holdings stay", 310),
    ];
    let mut x = 90;
    for (_, colour, text, width) in entries.into_iter().filter(|entry| entry.0) {
        match colour {
            GAIN | FALL => area.draw(&Circle::new((x + 8, 54), 4, colour.filled()))?,
            LINE => area.draw(&PathElement::new([(x, 54), (x + 16, 54)], colour.stroke_width(2)))?,
            shade => {
                area.draw(&Rectangle::new([(x, 47), (x + 16, 61)], shade.filled()))?;
                area.draw(&Rectangle::new([(x, 47), (x + 16, 61)], MUTED.stroke_width(1)))?;
            }
        }
        area.draw(&Text::new(text, (x + 22, 47), ("sans-serif", 14).into_font().color(&MUTED)))?;
        x += width;
    }
    Ok(())
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<RangedDateTime<DateTime<Utc>>, plotters::coord::types::RangedCoordf64>,
>;

/// What both charts have in common.
#[derive(Clone, Copy)]
struct Frame<'a> {
    from: Ts,
    to: Ts,
    low: f64,
    high: f64,
    y_labels: usize,
    shaded: &'a [Stretch],
}

impl Frame<'_> {
    fn draw(
        &self,
        area: &Area<'_>,
        caption: &str,
        inside: impl FnOnce(&mut Chart<'_, '_>) -> Result<()>,
    ) -> Result<()> {
        let Frame { low, high, .. } = *self;
        let text = |size: i32| ("sans-serif", size).into_font().color(&MUTED);
        let days = self.to.since_ms(self.from) as f64 / 86_400_000.0;
        let format = if days > 3.0 { "%Y-%m-%d" } else { "%m-%d %H:%M" };
        let decimals = if high - low > 100.0 { 0 } else { 1 };
        let mut builder = ChartBuilder::on(area);
        builder.margin(16).margin_right(36).margin_top(4).x_label_area_size(28).y_label_area_size(74);
        if !caption.is_empty() {
            builder.caption(caption, text(15));
        }
        let mut chart = builder.build_cartesian_2d(self.from.utc()..self.to.utc(), low..high)?;
        let shades = self.shaded.iter();
        chart.draw_series(
            shades.map(|(from, to, colour)| Rectangle::new([(from.utc(), low), (to.utc(), high)], colour.filled())),
        )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(8)
            .y_labels(self.y_labels)
            .label_style(text(14))
            .x_label_formatter(&|at| at.format(format).to_string())
            .y_label_formatter(&|value| format!("{value:.decimals$}"))
            .draw()?;
        inside(&mut chart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(n: i64) -> Ts {
        Ts(n * 3_600_000)
    }

    #[test]
    fn the_picture_holds_curve_marks_and_drawdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("equity.svg");
        let curve: Vec<(Ts, f64)> = (0..500).map(|i| (hour(i), 10_000.0 + (i as f64 / 9.0).sin() * 50.0)).collect();
        draw(&path, "test", &curve, &[Mark { at: hour(10), net: 5.0 }], &[]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("polyline") && svg.contains("circle") && svg.contains("drawdown"));
        assert!(svg.contains("closed with a gain") && !svg.contains("closed with a loss"));
        assert!(!svg.contains("PAUSED") && !svg.contains("HALTED"), "nothing was stopped");
    }

    /// A month that is paused almost all the time must not look like a month of trading.
    #[test]
    fn stretches_without_trading_are_shaded_and_named_in_both_charts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("equity.svg");
        let curve: Vec<(Ts, f64)> = (0..500).map(|i| (hour(i), 10_000.0)).collect();
        use CoordinatorState::{Halted, Paused, Running};
        let changes =
            [(hour(100), Paused), (hour(120), Halted), (hour(130), Halted), (hour(150), Running), (hour(400), Paused)];
        assert_eq!(
            stretches(&changes, hour(0), hour(499)),
            [
                (hour(100), hour(120), PAUSED),
                (hour(120), hour(130), HALTED),
                (hour(130), hour(150), HALTED),
                (hour(400), hour(499), PAUSED),
            ]
        );
        assert_eq!(stretches(&[(hour(900), Halted)], hour(0), hour(499)), []);
        draw(&path, "test", &curve, &[], &changes).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        // Twice in each chart and once in the legend.
        assert_eq!((svg.matches("#F3F4F6").count(), svg.matches("#FEF3C7").count()), (5, 5));
        assert!(svg.contains("PAUSED: no entries") && svg.contains("HALTED until reset: stops only, holdings stay"));
    }

    #[test]
    fn an_empty_curve_is_an_error_with_the_file_name() {
        let error = draw(Path::new("equity.svg"), "t", &[], &[], &[]).unwrap_err();
        assert!(format!("{error:#}").contains("equity.svg"));
    }
}
