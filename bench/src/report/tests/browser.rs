//! The page in Chromium, at the widths of a desktop and of a phone.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{Explainer, Thumbnails, chromium::chromium, explained, images, page, with_folds, with_queries};

/// Widths in pixels.
const WIDTHS: [u32; 2] = [1280, 390];

/// Opens `file` with `options`; returns standard output and standard error.
fn open(browser: &Path, folder: &Path, file: &Path, options: &[String]) -> [String; 2] {
    let output = Command::new(browser)
        // The sandbox does not work for root in containers; the page is trusted.
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--timeout=120000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(options)
        .arg(format!("file://{}", file.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Console messages of the page, rendered at `width`.
fn console_messages(browser: &Path, folder: &Path, file: &Path, width: u32) -> Vec<String> {
    let picture = folder.join("page.png");
    let options = [format!("--window-size={width},1600"), format!("--screenshot={}", picture.display())];
    let [_, log] = open(browser, folder, file, &options);
    let header = fs_err::read(&picture).unwrap();
    // The width in the header of a PNG file.
    assert_eq!(header[16..20], width.to_be_bytes(), "{log}");
    log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

/// Width of the page's viewport and of its content. The page is in a frame, because a window cannot be as narrow as a
/// phone.
fn widths(browser: &Path, folder: &Path, html: &str, width: u32) -> String {
    const REPORT_WIDTHS: &str =
        "<script>parent.postMessage(innerWidth + ' ' + document.documentElement.scrollWidth, '*')</script>";
    let scriptable: String = html.lines().filter(|line| !line.contains("Content-Security-Policy")).collect();
    fs_err::write(folder.join("inner.html"), scriptable.replace("</body>", &format!("{REPORT_WIDTHS}</body>")))
        .unwrap();
    let frame = format!(
        "<!doctype html><script>addEventListener('message', event => document.title = event.data)</script>\
         <iframe src=inner.html style=\"width:{width}px;height:800px;border:0\"></iframe>"
    );
    let file = folder.join("frame.html");
    fs_err::write(&file, frame).unwrap();
    let [document, log] =
        open(browser, folder, &file, &["--virtual-time-budget=5000".to_owned(), "--dump-dom".to_owned()]);
    let title = document.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    title.unwrap_or_else(|| panic!("{document}\n{log}")).to_owned()
}

#[test]
fn browser_renders_it_without_messages_or_overflow() {
    let Some(browser) = chromium() else { return };
    let folder = images();
    let html = page(
        vec![with_queries(), with_folds()],
        &Thumbnails::new(vec![folder.path().to_owned()]),
        &Explainer::default(),
    )
    .unwrap();
    let file = folder.path().join("report.html");
    fs_err::write(&file, &html).unwrap();
    for width in WIDTHS {
        assert_eq!(console_messages(&browser, folder.path(), &file, width), [""; 0]);
        assert_eq!(widths(&browser, folder.path(), &html, width), format!("{width} {width}"));
    }
    // The same checks detect an external image, which the page's policy forbids, and content that is too wide.
    let address = "<img src=\"http://127.0.0.1:9/x.png\">";
    let worse = html.replace("</main>", &format!("{address}<p style=\"width:2000px\">wide</p></main>"));
    fs_err::write(&file, &worse).unwrap();
    let found = console_messages(&browser, folder.path(), &file, WIDTHS[1]);
    assert!(found.len() == 1 && found[0].contains("Content Security Policy"), "{found:?}");
    let cut = widths(&browser, folder.path(), &worse, WIDTHS[1]);
    assert!(cut.starts_with("390 ") && cut != "390 390", "{cut}");
}

#[test]
fn explanations_of_failures_fit_the_page() {
    let Some(browser) = chromium() else { return };
    let folder = images();
    let (explainer, result) = explained();
    let html = page(vec![result], &Thumbnails::new(vec![folder.path().to_owned()]), &explainer).unwrap();
    let open = html.replace("<details class=\"contrast\">", "<details class=\"contrast\" open>");
    assert_ne!(open, html);
    let file = folder.path().join("report.html");
    fs_err::write(&file, &open).unwrap();
    for width in WIDTHS {
        assert_eq!(console_messages(&browser, folder.path(), &file, width), [""; 0]);
        assert_eq!(widths(&browser, folder.path(), &open, width), format!("{width} {width}"));
    }
}

/// Colour of the page's upper left corner, where only its background is.
fn background(browser: &Path, folder: &Path, file: &Path, dark: bool) -> String {
    let picture = folder.join("page.png");
    // Chromium's values: 0 is dark, 1 is light.
    let options = [
        format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)),
        "--window-size=1280,800".to_owned(),
        format!("--screenshot={}", picture.display()),
    ];
    open(browser, folder, file, &options);
    let pixels = laps_data::image::read(&picture).unwrap();
    pixels.image.pixels()[..3].iter().map(|value| format!("{value:02x}")).collect()
}

#[test]
fn dark_mode_follows_the_preference() {
    let Some(browser) = chromium() else { return };
    let folder = images();
    let html =
        page(vec![with_queries()], &Thumbnails::new(vec![folder.path().to_owned()]), &Explainer::default()).unwrap();
    let file = folder.path().join("report.html");
    fs_err::write(&file, &html).unwrap();
    assert_eq!(background(&browser, folder.path(), &file, false), "fbfbfa");
    assert_eq!(background(&browser, folder.path(), &file, true), "15181c");
}

/// Relative luminance of WCAG 2 for a colour such as `#15181c` or `#fff`.
fn luminance(colour: &str) -> f64 {
    let digits: String = match colour.len() {
        3 => colour.chars().flat_map(|digit| [digit, digit]).collect(),
        _ => colour.to_owned(),
    };
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
}

/// WCAG 2 requires a contrast of 4.5 between text and background.
#[test]
fn text_has_enough_contrast_in_light_and_dark_mode() {
    let style = include_str!("../../../templates/report.html");
    let palettes: Vec<&str> = style.lines().filter(|line| line.trim_start().starts_with(":root {")).collect();
    assert_eq!(palettes.len(), 2);
    for palette in palettes {
        let colour =
            |name: &str| luminance(palette.split(&format!("--{name}: #")).nth(1).unwrap().split(';').next().unwrap());
        for text in ["text", "soft", "blue", "orange", "good", "bad"] {
            for behind in ["page", "card"] {
                let [low, high] = [colour(text).min(colour(behind)), colour(text).max(colour(behind))];
                let contrast = (high + 0.05) / (low + 0.05);
                assert!(contrast >= 4.5, "{text} on {behind}: {contrast:.2} in {palette}");
            }
        }
    }
}
