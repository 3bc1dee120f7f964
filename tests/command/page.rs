//! The page of `serve` in Chromium, at the widths of a desktop and of a phone, by the DevTools protocol.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{chromium::chromium, files::scenes, running_server::RunningServer, serve::index, support::command};

/// A tab that is controlled over two named pipes: the protocol's messages are JSON that ends with a NUL byte.
struct Tab {
    child: Child,
    requests: File,
    messages: BufReader<File>,
    session: Option<String>,
    number: u64,
    /// Messages in the console of the page, failed loads included.
    console: Vec<String>,
}

impl Tab {
    fn open(browser: &Path, folder: &TempDir, width: u32) -> Self {
        let [requests, messages, profile] = ["requests", "messages", "profile"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args([&requests, &messages]).status().unwrap().success());
        let child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<\"$REQUESTS\" 4>\"$MESSAGES\"", "sh"])
            .arg(browser)
            // The sandbox does not work for root in containers; the page is trusted.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("REQUESTS", &requests)
            .env("MESSAGES", &messages)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The shell opens them in the same order, and each waits for the other side.
        let requests = File::options().write(true).open(requests).unwrap();
        let messages = BufReader::new(File::open(messages).unwrap());
        let mut tab = Self { child, requests, messages, session: None, number: 0, console: Vec::new() };
        let target = tab.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        tab.session = tab.call("Target.attachToTarget", attach)["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            tab.call(&format!("{domain}.enable"), json!({}));
        }
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        tab.call("Emulation.setDeviceMetricsOverride", metrics);
        tab
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut request = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.requests.write_all((request.to_string() + "\0").as_bytes()).unwrap();
        loop {
            let message = self.message();
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.messages.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        if let Some("Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown") =
            message["method"].as_str()
        {
            self.console.push(message["params"].to_string());
        }
        message
    }

    fn navigate(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address }));
        while self.message()["method"] != "Page.loadEventFired" {}
    }

    /// The value of a JavaScript expression; of a promise, what it resolves to.
    fn evaluate(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until a JavaScript condition holds, which changes with the document.
    fn wait(&mut self, condition: &str) {
        self.evaluate(&format!(
            "new Promise(resolve => {{ \
               const check = () => {{ if ({condition}) {{ observer.disconnect(); resolve(); }} }}; \
               const observer = new MutationObserver(check); \
               observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }}); \
               document.addEventListener('load', check, true); \
               check(); }})"
        ));
    }

    fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            _ => 27,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Moves the pointer to the middle of an element.
    fn point_at(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{ const element = document.querySelector('{selector}'); \
               element.scrollIntoView({{ block: 'center' }}); const box = element.getBoundingClientRect(); \
               return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        let event = json!({ "type": "mouseMoved", "x": place[0], "y": place[1] });
        self.call("Input.dispatchMouseEvent", event);
    }

    fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", feature);
    }

    /// Writes a picture of the page into the documentation, if `UPDATE_DOCS` is set.
    fn picture(&mut self, name: &str) {
        let size = self.evaluate("[innerWidth, document.documentElement.scrollHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let asked = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", asked);
        let bytes = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs_err::write(crate::files::repository_file("docs/src/images").join(name), bytes).unwrap();
        }
    }

    fn assert_fits(&mut self, width: u32) {
        let widths = self.evaluate("[innerWidth, document.documentElement.scrollWidth]");
        assert_eq!(widths, json!([width, width]));
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn page_searches_explains_and_fits_at_both_widths() {
    let Some(browser) = chromium() else { return };
    let (data, path) = index(8);
    let server = RunningServer::start(&path, &[]);
    for width in [1280, 390] {
        let folder = tempfile::tempdir().unwrap();
        let mut tab = Tab::open(&browser, &folder, width);
        tab.navigate(&server.url("/"));
        tab.assert_fits(width);

        // By keyboard alone: text, Enter, Tab to the first result, Enter, Escape.
        tab.evaluate("document.getElementById('text').focus()");
        tab.type_text("a red circle above a blue square");
        tab.press("Enter");
        let loaded = "[...document.querySelectorAll('#results img')].filter(image => image.naturalWidth > 0).length";
        tab.wait(&format!("{loaded} === 8"));
        let status = tab.evaluate("document.getElementById('status').textContent");
        assert_eq!(status, "8 results for “a red circle above a blue square”; 8 of 8 images compared exactly.");
        tab.assert_fits(width);
        for _ in 0..10 {
            if tab.evaluate("document.activeElement.matches('#results button')") == true {
                break;
            }
            tab.press("Tab");
        }
        tab.press("Enter");
        tab.wait("!document.getElementById('explanation').hidden");
        assert_eq!(tab.evaluate("document.activeElement.id"), "explanation");
        let about = tab.evaluate("document.getElementById('about').textContent");
        assert!(about.as_str().unwrap().starts_with("Similarity "), "{about}");
        // The map of a word is another than that of the text.
        let map = "document.getElementById('map').toDataURL()";
        let whole = tab.evaluate(map);
        tab.evaluate(
            "[...document.querySelectorAll('#words button')].find(word => word.textContent === 'red').click()",
        );
        assert_ne!(tab.evaluate(map), whole);
        tab.assert_fits(width);
        tab.picture(&format!("serve-{width}.png"));
        tab.press("Escape");
        assert_eq!(
            tab.evaluate("[explanation.hidden, document.activeElement.matches('#results li:first-child button')]"),
            json!([true, true])
        );

        // Everything that can be used or seen has a name for a screen reader.
        let tree = tab.call("Accessibility.getFullAXTree", json!({}));
        let named = |role: &str| -> Vec<bool> {
            let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["role"]["value"] == role);
            nodes.map(|node| node["name"]["value"].as_str().is_some_and(|name| !name.is_empty())).collect()
        };
        for (role, count) in [("button", 10), ("image", 8), ("searchbox", 1)] {
            let names = named(role);
            assert!(names.len() >= count && names.iter().all(|&name| name), "{role}: {names:?}");
        }

        // A dropped picture.
        let file = BASE64_STANDARD.encode(fs_err::read(data.path().join("images/test_00003.png")).unwrap());
        let drop = |bytes: &str| {
            format!(
                "(() => {{ const bytes = Uint8Array.from(atob('{bytes}'), letter => letter.charCodeAt(0)); \
                   const files = new DataTransfer(); files.items.add(new File([bytes], 'a.png', {{ type: 'image/png' }})); \
                   document.getElementById('drop').dispatchEvent(new DragEvent('drop', \
                     {{ dataTransfer: files, bubbles: true, cancelable: true }})); }})()"
            )
        };
        tab.evaluate(&drop(&file));
        tab.wait("document.getElementById('status').textContent.includes('the picture a.png') && document.querySelector('#results .score')");
        let first = tab.evaluate("document.querySelector('#results .name').textContent");
        assert_eq!(first, "test_00003.png");
        tab.wait(&format!("{loaded} === 8"));
        assert_eq!(tab.console, [""; 0]);

        // The page shows an error for a file that is not an image. The browser also logs the failed request.
        tab.evaluate(&drop("aGVsbG8="));
        tab.wait("document.getElementById('error').textContent");
        let error = tab.evaluate("document.getElementById('error').textContent");
        assert!(error.as_str().unwrap().starts_with("`query` cannot be used: not a JPEG, PNG"), "{error}");
        tab.assert_fits(width);
        assert!(tab.console.len() == 1 && tab.console[0].contains("422"), "{:?}", tab.console);
    }
}

#[test]
fn page_asks_for_the_token_and_follows_the_colour_preference() {
    let Some(browser) = chromium() else { return };
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &["--token", "s3cret"]);
    let folder = tempfile::tempdir().unwrap();
    let mut tab = Tab::open(&browser, &folder, 1280);
    tab.navigate(&server.url("/"));
    let background = "getComputedStyle(document.body).backgroundColor";
    for (preference, colour) in [("light", "rgb(251, 251, 250)"), ("dark", "rgb(21, 24, 28)")] {
        tab.prefer(preference);
        assert_eq!(tab.evaluate(background), colour);
    }
    assert_eq!(tab.evaluate("access.hidden"), true);
    tab.evaluate("text.value = 'a circle'; form.requestSubmit()");
    tab.wait("!document.getElementById('access').hidden && document.getElementById('error').textContent");
    assert_eq!(tab.evaluate("document.activeElement.id"), "token");
    tab.type_text("s3cret");
    tab.evaluate("form.requestSubmit()");
    tab.wait("document.querySelectorAll('#results button').length === 2");
    assert_eq!(tab.evaluate("document.getElementById('error').textContent"), "");

    // The server is gone.
    drop(server);
    tab.evaluate("form.requestSubmit()");
    tab.wait("document.getElementById('error').textContent");
    assert_eq!(tab.evaluate("document.getElementById('error').textContent"), "The server does not answer.");
    assert_eq!(tab.evaluate("document.getElementById('results').hasAttribute('aria-busy')"), false);
}

/// The page of `explain --out FILE.html`, opened as a file.
#[test]
fn explanation_page_follows_pointer_and_keyboard_at_both_widths() {
    let Some(browser) = chromium() else { return };
    let data = scenes(8);
    let caption = "a black triangle above a red heart";
    let run = command()
        .current_dir(data.path())
        .args(["explain", "images/test_00007.png", "--caption", caption, "--out", "why.html"])
        .args(["--entry", "shapes_swin", "--engine", "rust", "--quiet"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let page = data.path().join("why.html");
    for width in [1280, 390] {
        let folder = tempfile::tempdir().unwrap();
        let mut tab = Tab::open(&browser, &folder, width);
        tab.navigate(&format!("file://{}", page.display()));
        tab.assert_fits(width);
        for (scheme, colour) in [("dark", "rgb(21, 24, 28)"), ("light", "rgb(251, 251, 250)")] {
            tab.prefer(scheme);
            assert_eq!(tab.evaluate("getComputedStyle(document.body).backgroundColor"), colour);
        }
        let map = "[...document.querySelectorAll('#map i')].map(patch => patch.style.background).join()";
        let about = "document.getElementById('about').textContent";
        let whole = tab.evaluate(map);
        assert!(tab.evaluate(about).as_str().unwrap().starts_with("All patches add "));

        // A word that is pointed at shows its patches, a patch its words.
        tab.point_at("#words button:nth-of-type(9)");
        assert!(tab.evaluate(about).as_str().unwrap().starts_with("“heart” matches "), "{}", tab.evaluate(about));
        let of_word = tab.evaluate(map);
        assert_ne!(of_word, whole);
        tab.point_at("#map i:nth-of-type(12)");
        assert!(tab.evaluate(about).as_str().unwrap().starts_with("Patch in row "), "{}", tab.evaluate(about));
        assert_eq!(tab.evaluate("document.querySelectorAll('#words .strong').length > 0"), true);
        tab.point_at("h1");
        assert_eq!(tab.evaluate(map), of_word);
        assert_eq!(tab.evaluate("document.querySelectorAll('#words .strong').length"), 0);
        tab.picture(&format!("explain-{width}.png"));

        // By keyboard: the first button is that of the whole caption.
        tab.evaluate("document.activeElement.blur()");
        tab.press("Tab");
        assert_eq!(tab.evaluate("document.activeElement.textContent"), "whole caption");
        assert_eq!(tab.evaluate(map), whole);
        assert_eq!(tab.console, [""; 0]);
    }
}
