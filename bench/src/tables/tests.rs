//! Tables of invented results.

use super::*;
use crate::results::sample;

const COCO: [[f64; 6]; 2] = [[65.1, 90.2, 94.62, 51.196, 79.3, 87.5], [83.9, 97.9, 99.1, 71.9, 93.65, 97.3]];

fn tables() -> RecallTables {
    let mut coco = sample::result("coco_swin", &COCO);
    coco.provenance.machine.processor = "Another, larger Processor".to_owned();
    let mut small = sample::result("f30k_vit", &[[75.0, 93.0, 97.0, 62.0, 87.0, 92.0]]);
    small.comparisons.clear();
    small.limit = Some(200);
    small.evaluations[0].published_size = false;
    small.verdict = Verdict::NotCompared { reason: "published recalls are for the whole split".to_owned() };
    let whole = sample::result("f30k_vit", &[[75.8, 93.8, 97.1, 62.46, 87.5, 92.0]]);
    RecallTables::new(vec![coco, small, whole]).unwrap()
}

fn rendered(format: TableFormat) -> String {
    tables().render(format).unwrap()
}

#[test]
fn terminal_shows_measured_and_published_rows() {
    insta::assert_snapshot!(rendered(TableFormat::Terminal), @r"
    ┌────────────────────────────────────────────────────────────────────────────────────────┐
    │ f30k                         i2t R@1     R@5    R@10   t2i R@1     R@5    R@10    rSum │
    ╞════════════════════════════════════════════════════════════════════════════════════════╡
    │ f30k_vit                                                                               │
    │   VSE++                         71.8    92.8    96.5      59.4    84.7    90.9   496.1 │
    │   SCAN                          69.5    90.9    95.6      56.4    83.1    90.0   485.6 │
    │   SGR                           69.7    90.8    95.2      59.1    84.1    89.9   488.7 │
    │   CHAN                          69.2    91.8    95.0      58.4    84.9    90.6   489.9 │
    │   LAPS, paper                   74.0    93.4    97.4      62.5    87.3    92.7   507.3 │
    │   LAPS, README                  75.8    93.8       -      62.5    87.5       -       - │
    │   measured [1]                  75.8    93.8    97.1      62.5    87.5    92.0   508.7 │
    │     minus LAPS, paper          +1.80   +0.40   -0.30     -0.04   +0.20   -0.70   +1.36 │
    │     minus LAPS, README          0.00    0.00       -     -0.04    0.00       -       - │
    │ f30k_vit, first 200 images                                                             │
    │   measured [2]                  75.0    93.0    97.0      62.0    87.0    92.0   506.0 │
    └────────────────────────────────────────────────────────────────────────────────────────┘
    ┌────────────────────────────────────────────────────────────────────────────────────┐
    │ coco_5k                  i2t R@1     R@5    R@10   t2i R@1     R@5    R@10    rSum │
    ╞════════════════════════════════════════════════════════════════════════════════════╡
    │ coco_swin                                                                          │
    │   VSE++                     64.0    88.2    94.2      49.9    78.0    86.6   460.9 │
    │   SCAN                      60.7    86.6    93.2      48.1    77.1    86.1   451.8 │
    │   SGR                       61.0    86.7    93.2      48.6    77.2    86.3   453.1 │
    │   CHAN                      64.1    87.9    93.5      49.1    77.3    86.1   458.0 │
    │   LAPS, paper               64.5    89.2    94.4      51.6    78.9    87.2   465.8 │
    │   LAPS, README              65.1    90.2       -      51.2    79.3       -       - │
    │   measured [3]              65.1    90.2    94.6      51.2    79.3    87.5   467.9 │
    │     minus LAPS, paper      +0.60   +1.00   +0.22     -0.40   +0.40   +0.30   +2.12 │
    │     minus LAPS, README      0.00    0.00       -      0.00    0.00       -       - │
    └────────────────────────────────────────────────────────────────────────────────────┘
    ┌───────────────────────────────────────────────────────────────────────────────────┐
    │ coco_1k                  i2t R@1     R@5    R@10   t2i R@1     R@5   R@10    rSum │
    ╞═══════════════════════════════════════════════════════════════════════════════════╡
    │ coco_swin                                                                         │
    │   VSE++                     83.3    97.5    99.3      71.0    93.0   96.7   540.9 │
    │   SCAN                      80.9    97.0    99.1      69.7    93.1   97.1   536.9 │
    │   SGR                       81.2    97.1    99.1      69.9    93.2   97.2   537.7 │
    │   CHAN                      81.6    97.2    99.3      70.6    93.7   97.6   539.8 │
    │   LAPS, paper               84.0    97.6    99.3      72.1    93.7   97.3   544.1 │
    │   LAPS, README              83.9    97.9       -     71.9‡   93.7‡      -       - │
    │   measured [3]              83.9    97.9    99.1      71.9    93.7   97.3   543.7 │
    │     minus LAPS, paper      -0.10   +0.30   -0.20     -0.20   -0.05   0.00   -0.35 │
    │     minus LAPS, README      0.00    0.00       -      0.00   -0.05      -       - │
    └───────────────────────────────────────────────────────────────────────────────────┘
    ‡ inferred: the source prints it in a row where it cannot belong
    paper: Table 1 of the paper, also for the methods it compares with; its checkpoints are not published
    README: recalls that the authors give for their checkpoints, which were selected on the test split
    [1] f30k_vit on test: reproduced, every published recall is within 0.1 points; checkpoint model_best.pth (sha256 cccccccccccc), config 3d84ffdeb047, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; A Processor, linux x86_64; laps-zoo 0.1.0
    [2] f30k_vit on test: not compared, published recalls are for the whole split; checkpoint model_best.pth (sha256 cccccccccccc), config 3d84ffdeb047, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; A Processor, linux x86_64; laps-zoo 0.1.0
    [3] coco_swin on testall: reproduced, every published recall is within 0.1 points; checkpoint model_best.pth (sha256 cccccccccccc), config 576bbb565c2e, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; Another, larger Processor, linux x86_64; laps-zoo 0.1.0
    ");
}

#[test]
fn markdown_has_the_same_rows() {
    insta::assert_snapshot!(rendered(TableFormat::Markdown), @r"
    | f30k | i2t R@1 | R@5 | R@10 | t2i R@1 | R@5 | R@10 | rSum |
    |---|---:|---:|---:|---:|---:|---:|---:|
    | **f30k\_vit** |  |  |  |  |  |  |  |
    | VSE++ | 71.8 | 92.8 | 96.5 | 59.4 | 84.7 | 90.9 | 496.1 |
    | SCAN | 69.5 | 90.9 | 95.6 | 56.4 | 83.1 | 90.0 | 485.6 |
    | SGR | 69.7 | 90.8 | 95.2 | 59.1 | 84.1 | 89.9 | 488.7 |
    | CHAN | 69.2 | 91.8 | 95.0 | 58.4 | 84.9 | 90.6 | 489.9 |
    | LAPS, paper | 74.0 | 93.4 | 97.4 | 62.5 | 87.3 | 92.7 | 507.3 |
    | LAPS, README | 75.8 | 93.8 | - | 62.5 | 87.5 | - | - |
    | measured \[1\] | 75.8 | 93.8 | 97.1 | 62.5 | 87.5 | 92.0 | 508.7 |
    | &nbsp;&nbsp;minus LAPS, paper | +1.80 | +0.40 | -0.30 | -0.04 | +0.20 | -0.70 | +1.36 |
    | &nbsp;&nbsp;minus LAPS, README | 0.00 | 0.00 | - | -0.04 | 0.00 | - | - |
    | **f30k\_vit, first 200 images** |  |  |  |  |  |  |  |
    | measured \[2\] | 75.0 | 93.0 | 97.0 | 62.0 | 87.0 | 92.0 | 506.0 |

    | coco_5k | i2t R@1 | R@5 | R@10 | t2i R@1 | R@5 | R@10 | rSum |
    |---|---:|---:|---:|---:|---:|---:|---:|
    | **coco\_swin** |  |  |  |  |  |  |  |
    | VSE++ | 64.0 | 88.2 | 94.2 | 49.9 | 78.0 | 86.6 | 460.9 |
    | SCAN | 60.7 | 86.6 | 93.2 | 48.1 | 77.1 | 86.1 | 451.8 |
    | SGR | 61.0 | 86.7 | 93.2 | 48.6 | 77.2 | 86.3 | 453.1 |
    | CHAN | 64.1 | 87.9 | 93.5 | 49.1 | 77.3 | 86.1 | 458.0 |
    | LAPS, paper | 64.5 | 89.2 | 94.4 | 51.6 | 78.9 | 87.2 | 465.8 |
    | LAPS, README | 65.1 | 90.2 | - | 51.2 | 79.3 | - | - |
    | measured \[3\] | 65.1 | 90.2 | 94.6 | 51.2 | 79.3 | 87.5 | 467.9 |
    | &nbsp;&nbsp;minus LAPS, paper | +0.60 | +1.00 | +0.22 | -0.40 | +0.40 | +0.30 | +2.12 |
    | &nbsp;&nbsp;minus LAPS, README | 0.00 | 0.00 | - | 0.00 | 0.00 | - | - |

    | coco_1k | i2t R@1 | R@5 | R@10 | t2i R@1 | R@5 | R@10 | rSum |
    |---|---:|---:|---:|---:|---:|---:|---:|
    | **coco\_swin** |  |  |  |  |  |  |  |
    | VSE++ | 83.3 | 97.5 | 99.3 | 71.0 | 93.0 | 96.7 | 540.9 |
    | SCAN | 80.9 | 97.0 | 99.1 | 69.7 | 93.1 | 97.1 | 536.9 |
    | SGR | 81.2 | 97.1 | 99.1 | 69.9 | 93.2 | 97.2 | 537.7 |
    | CHAN | 81.6 | 97.2 | 99.3 | 70.6 | 93.7 | 97.6 | 539.8 |
    | LAPS, paper | 84.0 | 97.6 | 99.3 | 72.1 | 93.7 | 97.3 | 544.1 |
    | LAPS, README | 83.9 | 97.9 | - | 71.9‡ | 93.7‡ | - | - |
    | measured \[3\] | 83.9 | 97.9 | 99.1 | 71.9 | 93.7 | 97.3 | 543.7 |
    | &nbsp;&nbsp;minus LAPS, paper | -0.10 | +0.30 | -0.20 | -0.20 | -0.05 | 0.00 | -0.35 |
    | &nbsp;&nbsp;minus LAPS, README | 0.00 | 0.00 | - | 0.00 | -0.05 | - | - |

    - ‡ inferred: the source prints it in a row where it cannot belong
    - paper: Table 1 of the paper, also for the methods it compares with; its checkpoints are not published
    - README: recalls that the authors give for their checkpoints, which were selected on the test split
    - \[1\] f30k\_vit on test: reproduced, every published recall is within 0.1 points; checkpoint model\_best.pth (sha256 cccccccccccc), config 3d84ffdeb047, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; A Processor, linux x86\_64; laps-zoo 0.1.0
    - \[2\] f30k\_vit on test: not compared, published recalls are for the whole split; checkpoint model\_best.pth (sha256 cccccccccccc), config 3d84ffdeb047, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; A Processor, linux x86\_64; laps-zoo 0.1.0
    - \[3\] coco\_swin on testall: reproduced, every published recall is within 0.1 points; checkpoint model\_best.pth (sha256 cccccccccccc), config 576bbb565c2e, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; Another, larger Processor, linux x86\_64; laps-zoo 0.1.0
    ");
}

/// Entry names come from the user, so every character must be typeset.
#[test]
fn latex_typesets_any_entry_name() {
    let mut odd = sample::result("f30k_vit", &[[75.8, 93.8, 97.1, 62.46, 87.5, 92.0]]);
    odd.entry = r"50% & more_of #1 {x} ~ ^ \ $ [a]".to_owned();
    let tables =
        RecallTables::new(vec![odd, sample::result("coco_swin", &COCO)]).unwrap().render(TableFormat::Latex).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let document = format!("\\documentclass{{article}}\n\\begin{{document}}\n{tables}\\end{{document}}\n");
    std::fs::write(folder.path().join("table.tex"), document).unwrap();
    let mut command = std::process::Command::new("pdflatex");
    command.args(["-halt-on-error", "-interaction=nonstopmode", "table.tex"]).current_dir(folder.path());
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => println!("skipped: pdflatex is not installed"),
        Err(error) => panic!("{error}"),
        Ok(output) => {
            let log = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && log.contains("Output written on table.pdf"), "{log}");
            assert!(!log.contains("Missing character"), "{log}");
        }
    }
}

#[test]
fn latex_has_the_same_rows() {
    insta::assert_snapshot!(rendered(TableFormat::Latex), @r"
    \begin{tabular}{l|rrr|rrr|r}
    \hline
    f30k & \multicolumn{3}{c|}{image to text} & \multicolumn{3}{c|}{text to image} & \\
     & R@1 & R@5 & R@10 & R@1 & R@5 & R@10 & rSum \\
    \hline
    \multicolumn{8}{l}{\textbf{f30k\_vit}} \\
    VSE++ & 71.8 & 92.8 & 96.5 & 59.4 & 84.7 & 90.9 & 496.1 \\
    SCAN & 69.5 & 90.9 & 95.6 & 56.4 & 83.1 & 90.0 & 485.6 \\
    SGR & 69.7 & 90.8 & 95.2 & 59.1 & 84.1 & 89.9 & 488.7 \\
    CHAN & 69.2 & 91.8 & 95.0 & 58.4 & 84.9 & 90.6 & 489.9 \\
    LAPS, paper & 74.0 & 93.4 & 97.4 & 62.5 & 87.3 & 92.7 & 507.3 \\
    LAPS, README & 75.8 & 93.8 & - & 62.5 & 87.5 & - & - \\
    measured {[}1{]} & 75.8 & 93.8 & 97.1 & 62.5 & 87.5 & 92.0 & 508.7 \\
    \quad minus LAPS, paper & +1.80 & +0.40 & $-$0.30 & $-$0.04 & +0.20 & $-$0.70 & +1.36 \\
    \quad minus LAPS, README & 0.00 & 0.00 & - & $-$0.04 & 0.00 & - & - \\
    \hline
    \multicolumn{8}{l}{\textbf{f30k\_vit, first 200 images}} \\
    measured {[}2{]} & 75.0 & 93.0 & 97.0 & 62.0 & 87.0 & 92.0 & 506.0 \\
    \hline
    \end{tabular}

    \begin{tabular}{l|rrr|rrr|r}
    \hline
    coco\_5k & \multicolumn{3}{c|}{image to text} & \multicolumn{3}{c|}{text to image} & \\
     & R@1 & R@5 & R@10 & R@1 & R@5 & R@10 & rSum \\
    \hline
    \multicolumn{8}{l}{\textbf{coco\_swin}} \\
    VSE++ & 64.0 & 88.2 & 94.2 & 49.9 & 78.0 & 86.6 & 460.9 \\
    SCAN & 60.7 & 86.6 & 93.2 & 48.1 & 77.1 & 86.1 & 451.8 \\
    SGR & 61.0 & 86.7 & 93.2 & 48.6 & 77.2 & 86.3 & 453.1 \\
    CHAN & 64.1 & 87.9 & 93.5 & 49.1 & 77.3 & 86.1 & 458.0 \\
    LAPS, paper & 64.5 & 89.2 & 94.4 & 51.6 & 78.9 & 87.2 & 465.8 \\
    LAPS, README & 65.1 & 90.2 & - & 51.2 & 79.3 & - & - \\
    measured {[}3{]} & 65.1 & 90.2 & 94.6 & 51.2 & 79.3 & 87.5 & 467.9 \\
    \quad minus LAPS, paper & +0.60 & +1.00 & +0.22 & $-$0.40 & +0.40 & +0.30 & +2.12 \\
    \quad minus LAPS, README & 0.00 & 0.00 & - & 0.00 & 0.00 & - & - \\
    \hline
    \end{tabular}

    \begin{tabular}{l|rrr|rrr|r}
    \hline
    coco\_1k & \multicolumn{3}{c|}{image to text} & \multicolumn{3}{c|}{text to image} & \\
     & R@1 & R@5 & R@10 & R@1 & R@5 & R@10 & rSum \\
    \hline
    \multicolumn{8}{l}{\textbf{coco\_swin}} \\
    VSE++ & 83.3 & 97.5 & 99.3 & 71.0 & 93.0 & 96.7 & 540.9 \\
    SCAN & 80.9 & 97.0 & 99.1 & 69.7 & 93.1 & 97.1 & 536.9 \\
    SGR & 81.2 & 97.1 & 99.1 & 69.9 & 93.2 & 97.2 & 537.7 \\
    CHAN & 81.6 & 97.2 & 99.3 & 70.6 & 93.7 & 97.6 & 539.8 \\
    LAPS, paper & 84.0 & 97.6 & 99.3 & 72.1 & 93.7 & 97.3 & 544.1 \\
    LAPS, README & 83.9 & 97.9 & - & 71.9$^\ddagger$ & 93.7$^\ddagger$ & - & - \\
    measured {[}3{]} & 83.9 & 97.9 & 99.1 & 71.9 & 93.7 & 97.3 & 543.7 \\
    \quad minus LAPS, paper & $-$0.10 & +0.30 & $-$0.20 & $-$0.20 & $-$0.05 & 0.00 & $-$0.35 \\
    \quad minus LAPS, README & 0.00 & 0.00 & - & 0.00 & $-$0.05 & - & - \\
    \hline
    \end{tabular}

    \noindent $^\ddagger$ inferred: the source prints it in a row where it cannot belong\\
    \noindent paper: Table 1 of the paper, also for the methods it compares with; its checkpoints are not published\\
    \noindent README: recalls that the authors give for their checkpoints, which were selected on the test split\\
    \noindent {[}1{]} f30k\_vit on test: reproduced, every published recall is within 0.1 points; checkpoint model\_best.pth (sha256 cccccccccccc), config 3d84ffdeb047, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; A Processor, linux x86\_64; laps-zoo 0.1.0\\
    \noindent {[}2{]} f30k\_vit on test: not compared, published recalls are for the whole split; checkpoint model\_best.pth (sha256 cccccccccccc), config 3d84ffdeb047, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; A Processor, linux x86\_64; laps-zoo 0.1.0\\
    \noindent {[}3{]} coco\_swin on testall: reproduced, every published recall is within 0.1 points; checkpoint model\_best.pth (sha256 cccccccccccc), config 576bbb565c2e, data dddddddddddd; engine torch 2.13.0 on cpu, 2 threads; similarities avx512; Another, larger Processor, linux x86\_64; laps-zoo 0.1.0\\
    ");
}

#[test]
fn csv_rows_include_provenance() {
    let text = rendered(TableFormat::Csv);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("protocol,entry,row,kind,i2t_r1,i2t_r5,"), "{text}");
    let measured: Vec<&&str> = lines.iter().filter(|line| line.contains(",measured,measured,")).collect();
    assert_eq!(measured.len(), 4);
    let expected = format!(
        "coco_5k,coco_swin,measured,measured,65.100,90.200,94.620,51.196,79.300,87.500,467.916,,3,{},{},{},{},\
         \"torch 2.13.0 on cpu, 2 threads\",avx512,\"Another, larger Processor\",linux x86_64,0.1.0,,,,,,",
        ["measured"; 7].join("; "),
        "c".repeat(64),
        laps_hub::registry::find("coco_swin").unwrap().config_sha256,
        "d".repeat(64)
    );
    assert_eq!(**measured[2], expected);
    let marked =
        "coco_1k,coco_swin,\"LAPS, README\",published,83.900,97.900,,71.900,93.700,,,t2i_r1 inferred; t2i_r5 inferred,";
    assert!(lines.iter().any(|line| line.starts_with(marked)), "{text}");
}

#[test]
fn metrics_by_judgements_are_a_table_of_their_own() {
    let mut result = sample::result("coco_swin", &[[65.1, 90.2, 94.62, 51.196, 79.3, 87.5]]);
    let metrics = |map_at_r: f64| {
        serde_json::json!({
            "queries": 1261, "map_at_r": map_at_r, "r_precision": 41.5, "r1": 70.25, "r5": 90.0, "r10": 95.0,
        })
    };
    let judged = serde_json::json!({ "set": "eccv", "sha256": "e", "i2t": metrics(30.125), "t2i": metrics(33.5) });
    result.judged.push(serde_json::from_value(judged).unwrap());
    let tables = RecallTables::new(vec![result]).unwrap();
    let text = tables.render(TableFormat::Markdown).unwrap();
    assert!(text.contains("| judgements | mAP@R | R-P | R@1 | R@5 | R@10 |\n"), "{text}");
    assert!(text.contains("| eccv t2i, coco\\_swin \\[1\\] | 33.50 | 41.50 | 70.25 | 90.00 | 95.00 |\n"), "{text}");
    for format in [TableFormat::Terminal, TableFormat::Latex] {
        let text = tables.render(format).unwrap();
        assert!(text.contains("mAP@R") && text.contains("33.50"), "{text}");
    }
    let text = tables.render(TableFormat::Csv).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let row = lines.iter().find(|line| line[0] == "eccv").unwrap();
    assert_eq!(row[..7], ["eccv", "coco_swin", "measured", "judged", "70.250", "90.000", "95.000"]);
    assert!(text.lines().next().unwrap().ends_with("i2t_map_at_r,i2t_r_precision,t2i_map_at_r,t2i_r_precision"));
    assert!(text.lines().any(|line| line.ends_with("30.125,41.500,33.500,41.500")), "{text}");
}

#[test]
fn json_has_exact_values() {
    let value: serde_json::Value = serde_json::from_str(&rendered(TableFormat::Json)).unwrap();
    assert_eq!(value["schema"], 1);
    let rows = value["tables"][2]["groups"][0]["rows"].as_array().unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    let expected = [["baseline"; 4].as_slice(), &["published"; 2], &["measured"], &["difference"; 2]].concat();
    assert_eq!(kinds, expected);
    assert_eq!(rows[5]["figures"][3], serde_json::json!({ "value": 71.9, "status": "inferred" }));
    let marks: Vec<&str> = rows[5]["marks"].as_array().unwrap().iter().map(|mark| mark.as_str().unwrap()).collect();
    let missing = "not_published";
    assert_eq!(marks, ["published", "published", missing, "published", "published", missing, missing]);
    assert_eq!(value["results"][2]["provenance"]["machine"]["processor"], "Another, larger Processor");
}

#[test]
fn order_of_results_does_not_matter() {
    let results = || {
        let mut other = sample::result("f30k_vit", &[[74.0, 93.0, 97.0, 62.0, 87.0, 92.0]]);
        sample::entry(&mut other).checkpoint.sha256 = "0".repeat(64);
        vec![
            sample::result("f30k_vit", &[[75.0, 93.0, 97.0, 62.0, 87.0, 92.0]]),
            sample::result("coco_swin", &COCO),
            other,
        ]
    };
    let mut reversed = results();
    reversed.reverse();
    let texts =
        [results(), reversed].map(|results| RecallTables::new(results).unwrap().render(TableFormat::Markdown).unwrap());
    assert_eq!(texts[0], texts[1]);
    // Both checkpoints are in one group, below one set of published rows.
    assert_eq!(texts[0].matches("| VSE++ |").count(), 3);
    assert!(
        texts[0].contains("| measured \\[1\\] | 74.0 |") || texts[0].contains("| measured [1] | 74.0 |"),
        "{}",
        texts[0]
    );
}

#[test]
fn different_configuration_of_a_built_in_name_is_a_separate_group() {
    let mut other = sample::result("f30k_vit", &[[74.0, 93.0, 97.0, 62.0, 87.0, 92.0]]);
    sample::entry(&mut other).config_sha256 = "e".repeat(64);
    let tables =
        RecallTables::new(vec![other, sample::result("f30k_vit", &[[75.0, 93.0, 97.0, 62.0, 87.0, 92.0]])]).unwrap();
    let names: Vec<&str> = tables.tables[0].groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["f30k_vit", "f30k_vit, different configuration, split test"]);
    assert!(tables.tables[0].groups[1].rows.iter().all(|row| row.kind != RowKind::Baseline));
}

#[test]
fn unknown_format_is_rejected() {
    let error = "excel".parse::<TableFormat>().unwrap_err().to_string();
    insta::assert_snapshot!(error, @r"
    `format` cannot be used
      expected: `terminal`, `markdown`, `csv`, `latex`, `json`
      found: `excel`
    ");
}

fn printed(table: PrintedTable, results: Vec<Reproduction>) -> RecallTables {
    RecallTables::printed(table, results).unwrap()
}

#[test]
fn printed_table_without_results_has_every_published_row() {
    let rows = |table, kind| printed(table, Vec::new()).rows().filter(|row| row.kind == kind).count();
    // Four encoders with five methods by three protocols, two encoders by two, nine ablations, six models, four encoders by
    // three.
    let expected = [("1", 60), ("2", 4), ("4", 9), ("d2s", 6), ("seps", 12)];
    for ((name, table), (known, count)) in PrintedTable::ALL.into_iter().zip(expected) {
        assert_eq!((name, name.parse::<PrintedTable>().unwrap()), (known, table));
        assert_eq!((rows(table, RowKind::Published), rows(table, RowKind::NotMeasured)), (count, count), "{name}");
        assert_eq!(rows(table, RowKind::Measured), 0);
    }
    assert!("3".parse::<PrintedTable>().is_err());
    insta::assert_snapshot!(printed(PrintedTable::Two, Vec::new()).render(TableFormat::Markdown).unwrap(), @r"
    | f30k | i2t R@1 | R@5 | R@10 | t2i R@1 | R@5 | R@10 | rSum |
    |---|---:|---:|---:|---:|---:|---:|---:|
    | **clip\_vit\_base\_224** |  |  |  |  |  |  |  |
    | LAPS | 92.9 p | 99.3 p | n/p | 80.6 p | 95.5 p | n/p | n/p |
    | &nbsp;&nbsp;not measured, f30k\_clip\_b16 | n/m | n/m | n/m | n/m | n/m | n/m | n/m |
    | **clip\_vit\_large\_224** |  |  |  |  |  |  |  |
    | LAPS | 94.6 p | 99.9 p | n/p | 84.9 p | 97.3 p | n/p | n/p |
    | &nbsp;&nbsp;not measured, f30k\_clip\_l14 | n/m | n/m | n/m | n/m | n/m | n/m | n/m |

    | coco_5k | i2t R@1 | R@5 | R@10 | t2i R@1 | R@5 | R@10 | rSum |
    |---|---:|---:|---:|---:|---:|---:|---:|
    | **clip\_vit\_base\_224** |  |  |  |  |  |  |  |
    | LAPS | 69.8 p | 90.4 p | n/p | 54.3 p | 80.0 p | n/p | n/p |
    | &nbsp;&nbsp;not measured, coco\_clip\_b16 | n/m | n/m | n/m | n/m | n/m | n/m | n/m |
    | **clip\_vit\_large\_224** |  |  |  |  |  |  |  |
    | LAPS | 72.9 p | 91.7 p | n/p | 57.1 p | 81.3 p | n/p | n/p |
    | &nbsp;&nbsp;not measured, coco\_clip\_l14 | n/m | n/m | n/m | n/m | n/m | n/m | n/m |

    - published: Table 2 of the paper (CVPR 2024), which has no R@10; no checkpoint and no code is published
    - p: published; \[N\]: measured here, by result N; n/m: not measured here; n/p: not published
    ");
}

/// Every row of Tables 1, 2 and 4 and of D2S-VSE has an entry that can fill it. SEPS publishes no checkpoint.
#[test]
fn every_printed_row_has_an_entry() {
    for (name, table) in PrintedTable::ALL.into_iter().filter(|&(_, table)| table != PrintedTable::Seps) {
        let tables = printed(table, Vec::new());
        let without: Vec<&RecallRow> = tables.rows().filter(|row| row.name.ends_with("no entry")).collect();
        assert!(without.is_empty(), "{name}: {without:?}");
    }
}

/// A recall whose queries contain descriptions of the test images has a mark in every format, and a note says what was seen.
#[test]
fn audits_are_in_every_format() {
    let seps = printed(PrintedTable::Seps, Vec::new());
    let d2s = printed(PrintedTable::D2sVse, Vec::new());
    for (_, format) in TableFormat::ALL {
        let [marks, d2s_marks] = match format {
            TableFormat::Terminal => [
                ["86.1§ p", "560.9§ p", "§ audit: ", "of its test image: yes (seen in code"],
                ["68.5 p", "531.9 p", "audit of d2s_vse, does", "of its test image: no (seen in code"],
            ],
            TableFormat::Markdown => [
                ["| 86.1§ p | 93.7§ p | n/p |", "- § audit: ", "- audit of seps, does", "- audit of avse, does"],
                ["| 68.5 p |", "| 531.9 p |", "- audit of d2s\\_vse, does", "test image: no (seen"],
            ],
            TableFormat::Latex => [
                ["86.1\\S{} p", "\\noindent \\S{} audit: ", "\\noindent audit of seps", "test image: yes (seen"],
                ["68.5 p", "531.9 p", "\\noindent audit of d2s\\_vse, does", "test image: no (seen"],
            ],
            TableFormat::Csv => [["86.100,93.700,,86.900,98.100,,560.900,audit yes,,"; 4], ["531.900,audit no,,"; 4]],
            TableFormat::Json => [
                ["\"audit\": \"yes\"", "\"mark\": \"yes\"", "\"seps\": {", "\"avse\": {"],
                ["\"audit\": \"no\"", "\"mark\": \"no\"", "\"d2s_vse\": {", "\"text\": \"no (seen"],
            ],
        };
        let [text, d2s_text] = [&seps, &d2s].map(|tables| tables.render(format).unwrap());
        assert!(marks.iter().all(|mark| text.contains(mark)), "{}: {text}", format.name());
        assert!(d2s_marks.iter().all(|mark| d2s_text.contains(mark)), "{}: {d2s_text}", format.name());
        assert!(!d2s_text.contains('§') && !d2s_text.contains("\\S{}"), "{}: {d2s_text}", format.name());
    }
    let paper = printed(PrintedTable::One, Vec::new());
    assert!(paper.audits.is_empty() && paper.rows().all(|row| row.audit.is_none()));
    let entry = RecallTables::published(&laps_hub::registry::find("f30k_vit_384_d2s").unwrap()).unwrap();
    assert!(entry.rows().all(|row| row.audit == Some(AuditMark::No)));
    assert!(entry.notes().iter().any(|note| note.starts_with("audit of d2s_vse, does")), "{:?}", entry.notes());
}

#[test]
fn table_of_seps_has_published_recalls_only() {
    let text = printed(PrintedTable::Seps, Vec::new()).render(TableFormat::Markdown).unwrap();
    let rows: Vec<&str> = text.lines().take(5).collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
    | f30k | i2t R@1 | R@5 | R@10 | t2i R@1 | R@5 | R@10 | rSum |
    |---|---:|---:|---:|---:|---:|---:|---:|
    | **vit\_224** |  |  |  |  |  |  |  |
    | SEPS | 86.1§ p | 93.7§ p | n/p | 86.9§ p | 98.1§ p | n/p | 560.9§ p |
    | &nbsp;&nbsp;not measured, no entry | n/m | n/m | n/m | n/m | n/m | n/m | n/m |
    ");
}

#[test]
fn printed_table_shows_results_of_whole_test_splits_beside_the_published_rows() {
    let whole = sample::result("f30k_vit", &[[75.8, 93.8, 97.1, 62.46, 87.5, 92.0]]);
    let mut small = whole.clone();
    small.limit = Some(200);
    let ablations = printed(PrintedTable::Four, vec![small.clone(), whole.clone()]);
    let measured: Vec<&RecallRow> = ablations.rows().filter(|row| row.kind == RowKind::Measured).collect();
    // The public code stands for `complete` and for `attentive scores only`.
    assert_eq!(measured.len(), 2);
    assert!(measured.iter().all(|row| row.name == "  measured, f30k_vit"));
    let number = measured[0].result.unwrap();
    assert_eq!(ablations.results[number - 1].split, "test");
    for (_, format) in TableFormat::ALL {
        let text = ablations.render(format).unwrap();
        let marks = match format {
            TableFormat::Terminal | TableFormat::Markdown | TableFormat::Latex => ["74.0 p", "n/m", "n/p"],
            TableFormat::Csv | TableFormat::Json => ["not_published", "not_measured", "measured"],
        };
        let measured = match format {
            TableFormat::Terminal => "75.8 [",
            TableFormat::Markdown => "75.8 \\[",
            TableFormat::Latex => "75.8 {[}",
            TableFormat::Csv => "measured; measured; measured;",
            TableFormat::Json => "\"measured\",\n",
        };
        assert!(marks.iter().chain([&measured]).all(|mark| text.contains(mark)), "{}: {text}", format.name());
    }
    let first = printed(PrintedTable::One, vec![whole, small]);
    let kinds = |name: &str| {
        let vit = &first.tables[0].groups[0];
        let position = vit.rows.iter().position(|row| row.name == name).unwrap();
        vit.rows[position + 1].kind
    };
    assert_eq!((first.tables[0].protocol, first.tables[0].groups[0].name.as_str()), (Protocol::F30k, "vit_224"));
    assert_eq!((kinds("LAPS"), kinds("SCAN")), (RowKind::Measured, RowKind::NotMeasured));
}
