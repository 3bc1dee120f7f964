//! SVG charts that use the colours of the page.
//!
//! All charts are 360 units wide, so that their text stays readable at the width of a phone.

use std::fmt::{Arguments, Write};

/// Width of a chart.
const WIDTH: f64 = 360.0;
/// Height of charts with axes.
const HEIGHT: f64 = 220.0;
/// Edges of the plot area.
const LEFT: f64 = 36.0;
const RIGHT: f64 = 350.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 188.0;
/// Height of a row of [`bars`] and [`dots`].
const ROW_HEIGHT: f64 = 34.0;
/// Names of the two directions.
const NAMES: [&str; 2] = ["image to text", "text to image"];

/// An SVG document under construction.
struct Svg(String);

impl Svg {
    fn new(height: f64, label: &str) -> Self {
        Self(format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">",
            escape(label)
        ))
    }

    fn add(&mut self, part: Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(part);
    }

    fn text(&mut self, [x, y]: [f64; 2], anchor: &str, text: &str) {
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text)));
    }

    /// Horizontal grid lines with labels.
    fn grid_lines(&mut self, values: &[(f64, String)]) {
        for (share, label) in values {
            let y = y_of(*share);
            self.add(format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
            self.text([LEFT - 5.0, y + 3.5], "end", label);
        }
    }

    fn end(self) -> String {
        self.0 + "</svg>"
    }
}

/// The y coordinate of a share of the plot height.
fn y_of(share: f64) -> f64 {
    BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
}

/// Bars of both directions side by side. `groups` are labels and percentages; the axis ends at a round number above
/// them.
pub(super) fn histogram(groups: &[(String, [f64; 2])], label: &str) -> String {
    let highest = groups.iter().flat_map(|(_, shares)| *shares).fold(0.0, f64::max);
    let top = [5.0, 10.0, 20.0, 40.0, 60.0, 80.0].into_iter().find(|&top| highest <= top).unwrap_or(100.0);
    let mut svg = Svg::new(HEIGHT, label);
    svg.grid_lines(&[0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, decimal(share * top))));
    let step = (RIGHT - LEFT) / groups.len().max(1) as f64;
    let width = (0.38 * step).min(24.0);
    for (index, (name, shares)) in groups.iter().enumerate() {
        let middle = LEFT + (index as f64 + 0.5) * step;
        for (side, share) in shares.iter().enumerate() {
            let (x, y) = (middle + (side as f64 - 1.0) * width, y_of(share / top));
            svg.add(format_args!(
                "<rect class=\"side{side}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>rank {}, {}: {share:.1} %</title></rect>",
                width - 1.0,
                BOTTOM - y,
                escape(name),
                NAMES[side]
            ));
        }
        svg.text([middle, BOTTOM + 14.0], "middle", name);
    }
    svg.text([(LEFT + RIGHT) / 2.0, BOTTOM + 29.0], "middle", "rank of the correct answer");
    svg.end()
}

/// Recall at K = 1, 2, ... of both directions, in percent, on a logarithmic axis, with published recalls as circles.
pub(super) fn curves(recalls: &[Vec<f64>; 2], published: &[(usize, usize, f64)], label: &str) -> String {
    let longest = recalls.iter().map(Vec::len).max().unwrap_or(1).max(2);
    let x_of = |depth: usize| LEFT + (depth as f64).ln() / (longest as f64).ln() * (RIGHT - LEFT);
    let mut svg = Svg::new(HEIGHT, label);
    svg.grid_lines(&[0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, decimal(100.0 * share))));
    for depth in [1, 2, 5, 10, 20, 50, 100].into_iter().filter(|&depth| depth <= longest) {
        let x = x_of(depth);
        svg.add(format_args!("<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>"));
        svg.text([x, BOTTOM + 14.0], "middle", &depth.to_string());
    }
    svg.text([(LEFT + RIGHT) / 2.0, BOTTOM + 29.0], "middle", "K");
    for (side, curve) in recalls.iter().enumerate() {
        let points = (1..).zip(curve).map(|(depth, recall)| format!("{:.1},{:.1}", x_of(depth), y_of(recall / 100.0)));
        let points = points.collect::<Vec<_>>().join(" ");
        svg.add(format_args!(
            "<polyline class=\"line{side}\" points=\"{points}\"><title>{}</title></polyline>",
            NAMES[side]
        ));
    }
    for &(side, depth, recall) in published.iter().filter(|(_, depth, _)| *depth <= longest) {
        svg.add(format_args!(
            "<circle class=\"point{side}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>published {}, R@{depth}: {recall:.1}</title></circle>",
            x_of(depth),
            y_of(recall / 100.0),
            NAMES[side.min(1)]
        ));
    }
    svg.end()
}

/// One horizontal bar per row, with name and text; the longest bar has the full width.
pub(super) fn bars(items: &[(String, f64, String)], label: &str) -> String {
    let longest = items.iter().map(|(_, length, _)| *length).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = Svg::new(ROW_HEIGHT * items.len() as f64 + 4.0, label);
    for (index, (name, length, text)) in items.iter().enumerate() {
        let y = ROW_HEIGHT * index as f64;
        svg.text([2.0, y + 13.0], "start", name);
        svg.text([WIDTH - 4.0, y + 13.0], "end", text);
        let width = (length / longest).clamp(0.0, 1.0) * (WIDTH - 6.0);
        svg.add(format_args!(
            "<rect class=\"track\" x=\"2\" y=\"{0:.1}\" width=\"{1:.1}\" height=\"8\"/><rect class=\"side0\" x=\"2\" y=\"{0:.1}\" width=\"{width:.1}\" height=\"8\"/>",
            y + 18.0,
            WIDTH - 6.0
        ));
    }
    svg.end()
}

/// One dot per row on an axis from the smallest to the largest value, and a line at their mean.
pub(super) fn dots(items: &[(String, f64)], mean: f64, label: &str) -> String {
    let values = || items.iter().map(|(_, value)| *value);
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    let span = (most - least).max(1.0);
    let x_of = |value: f64| 110.0 + (value - least) / span * (WIDTH - 170.0);
    let height = ROW_HEIGHT * items.len() as f64 + 20.0;
    let mut svg = Svg::new(height, label);
    let x = x_of(mean);
    svg.add(format_args!("<line class=\"mean\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"4\" y2=\"{:.1}\"/>", height - 18.0));
    for (index, (name, value)) in items.iter().enumerate() {
        let y = ROW_HEIGHT * (index as f64 + 0.5);
        svg.text([2.0, y + 3.5], "start", name);
        svg.add(format_args!("<circle class=\"dot\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>", x_of(*value)));
        svg.text([x_of(*value) + 10.0, y + 3.5], "start", &format!("{value:.1}"));
    }
    svg.text([x, height - 5.0], "middle", &format!("mean {mean:.1}"));
    svg.end()
}

fn decimal(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Escapes text for elements and attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The axis ends at a round number.
    #[test]
    fn bar_heights_are_proportional_to_shares() {
        let svg = histogram(&[("1".to_owned(), [20.0, 10.0]), ("2".to_owned(), [0.0, 5.0])], "ranks");
        let heights: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .map(|bar| bar.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        let whole = BOTTOM - TOP;
        for (found, share) in heights.iter().zip([1.0, 0.5, 0.0, 0.25]) {
            // Coordinates have one decimal.
            assert!((found - share * whole).abs() <= 0.051, "{heights:?}");
        }
        assert!(svg.contains("<title>rank 1, image to text: 20.0 %</title>"));
    }

    #[test]
    fn names_are_escaped() {
        let svg = bars(&[("<script>\"&'".to_owned(), 1.0, "1 s".to_owned())], "<b>");
        assert!(svg.contains("&lt;script&gt;&quot;&amp;&#39;") && svg.contains("aria-label=\"&lt;b&gt;\""), "{svg}");
        assert!(!svg.contains("<script"));
    }
}
