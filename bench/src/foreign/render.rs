//! The terminal output.

use comfy_table::{Table, presets};

use super::ForeignEvaluation;

/// Recalls and notes for people.
pub fn render(result: &ForeignEvaluation) -> String {
    let head = result.head.as_deref().map_or_else(String::new, |head| format!(", head {head}"));
    let mut text = format!("foreign model{head}: {} images, {} captions\n", result.images, result.captions);
    for source in &result.sources {
        text += &format!("{} (sha256 {})\n", source.file, source.sha256.get(..12).unwrap_or(&source.sha256));
    }
    for evaluation in &result.evaluations {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header([evaluation.protocol.name(), "i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"]);
        let [i2t, t2i] = [&evaluation.headline.i2t, &evaluation.headline.t2i];
        let values = [i2t.r1, i2t.r5, i2t.r10, t2i.r1, t2i.r5, t2i.r10, evaluation.headline.rsum];
        let mut row = vec!["measured".to_owned()];
        row.extend(values.map(|value| format!("{value:.1}")));
        table.add_row(row);
        text += &format!(
            "\n{table}\nmedian rank {} / {}, mean rank {:.3} / {:.3} (image to text / text to image)\n",
            i2t.median_rank, t2i.median_rank, i2t.mean_rank, t2i.mean_rank
        );
        let ties = evaluation.ties.i2t + evaluation.ties.t2i;
        if ties > 0 {
            text += &format!(
                "{ties} queries with ties: rSum {:.1} if each tie is decided against the right answer, {:.1} if for it\n",
                evaluation.pessimistic.rsum, evaluation.optimistic.rsum
            );
        }
    }
    for note in &result.notes {
        text += &format!("note: {note}\n");
    }
    text
}
