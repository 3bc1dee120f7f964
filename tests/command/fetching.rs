//! Downloads, end to end: from a local server that behaves like the services, with dropped connections, killed processes
//! and concurrent downloads.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use insta::assert_snapshot;
use laps_hub::registry;
use laps_model::{
    models,
    params::{Init, Parameter},
    params_init,
    random::SplitMix64,
};
use tempfile::TempDir;

use crate::{
    files::with_poolers,
    full_size::{ALONE, write_checkpoint, write_data},
    server::{End, Reply, Request, TestServer},
    support::{ProgramOutput, finished},
    writer,
};

const SWIN: &str = "swin-base-patch4-window7-224";
const COMMIT: &str = "86b5e0934494bd15c9632b12f734a8a67f723594";

/// The program with its own cache and services.
fn command(cache: &Path, server: &TestServer) -> Command {
    let mut command = Command::new(crate::PROGRAM);
    command.env("LAPS_ZOO_CACHE", cache).env("HF_HOME", cache.join("none"));
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "LAPS_ZOO_MIRRORS"] {
        command.env_remove(name);
    }
    for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        command.env_remove(name);
    }
    for name in ["LAPS_ZOO_GDRIVE_URL", "HF_ENDPOINT", "LAPS_ZOO_GITHUB_URL", "LAPS_ZOO_COCO_URL", "LAPS_ZOO_PYPI_URL"]
    {
        command.env(name, server.url());
    }
    command
}

fn run(cache: &Path, server: &TestServer, arguments: &[&str]) -> ProgramOutput {
    finished(command(cache, server).args(arguments).output().unwrap())
}

fn start(cache: &Path, server: &TestServer, arguments: &[&str]) -> Child {
    let mut command = command(cache, server);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A readable checkpoint of about 8 MB, used as an encoder without a published hash.
fn encoder() -> Arc<Vec<u8>> {
    let parameter = Parameter { name: "a".to_owned(), shape: vec![2 << 20], init: Init::Normal };
    let values = params_init::init_parameters(&[parameter], 7).unwrap()[0].1.values().to_vec();
    Arc::new(writer::safetensors(&[("a", &[2 << 20], values)]))
}

/// A hub that serves it.
fn hub(request: &Request, bytes: &Arc<Vec<u8>>) -> Reply {
    if !request.path.ends_with("/model.safetensors") {
        return Reply::new(404, "").with("X-Error-Code", "EntryNotFound");
    }
    Reply::file(request, bytes, "\"abc\"").with("X-Repo-Commit", COMMIT)
}

fn weights_path(cache: &Path) -> std::path::PathBuf {
    cache.join(format!("backbones/{SWIN}/model.safetensors"))
}

#[test]
fn killed_download_leaves_no_wrong_file() {
    const KILLS: usize = 24;
    let (bytes, folder) = (encoder(), tempfile::tempdir().unwrap());
    let cache = folder.path();
    let (served, asked) = (Arc::clone(&bytes), AtomicUsize::new(0));
    let (stalls, stalled) = mpsc::channel();
    let server = TestServer::start(move |request| {
        let reply = hub(request, &served);
        let count = asked.fetch_add(1, Ordering::SeqCst);
        if count < KILLS / 2 {
            // Killed after at most this many bytes were sent.
            let most = SplitMix64::named(7, &format!("kill {count}")).below(1 << 20) as u64;
            stalls.send(()).unwrap();
            return reply.ending(End::Stall(most));
        }
        reply
    });
    let mut random = SplitMix64::named(7, "moments");
    for kill in 0..KILLS {
        let mut child = start(cache, &server, &["fetch", SWIN]);
        if kill < KILLS / 2 {
            stalled.recv().unwrap();
        }
        // No wait here, so that the process is killed at an arbitrary moment.
        std::thread::sleep(std::time::Duration::from_micros(random.below(60_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        if weights_path(cache).exists() {
            assert!(fs_err::read(weights_path(cache)).unwrap() == *bytes, "kill {kill}: a wrong file");
            fs_err::remove_file(weights_path(cache)).unwrap();
        }
    }
    // The last run resumes, and uses up the remaining faults.
    let last = run(cache, &server, &["fetch", SWIN]);
    assert_eq!(last.status, 0, "{}", last.stderr);
    assert!(fs_err::read(weights_path(cache)).unwrap() == *bytes);
    let verified = run(cache, &server, &["verify", "--all"]);
    assert_eq!(verified.status, 0, "{}", verified.stdout);
    let left: Vec<_> = fs_err::read_dir(weights_path(cache).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["model.safetensors"]);
}

#[test]
fn concurrent_processes_download_a_file_once() {
    let (bytes, folder) = (encoder(), tempfile::tempdir().unwrap());
    let served = Arc::clone(&bytes);
    let server = TestServer::start(move |request| hub(request, &served));
    let children: Vec<_> = (0..4).map(|_| start(folder.path(), &server, &["fetch", SWIN])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(fs_err::read(weights_path(folder.path())).unwrap() == *bytes);
    assert_eq!(server.log().len(), 1);
}

#[test]
fn downloads_are_listed_verified_and_pruned() {
    let (bytes, folder) = (encoder(), tempfile::tempdir().unwrap());
    let cache = folder.path();
    let served = Arc::clone(&bytes);
    let server = TestServer::start(move |request| hub(request, &served));
    let sha256 = registry::sha256(&bytes);
    let masked = |run: ProgramOutput| {
        let text = format!("{}{}", run.stdout, run.stderr).replace(&server.url(), "SERVER");
        let text = text.replace(&cache.display().to_string(), "CACHE").replace(&sha256, "SHA256");
        let text = text.replace(&sha256[..12], "SHA").replace(&bytes.len().to_string(), "BYTES");
        (run.status, text)
    };
    assert_eq!(masked(run(cache, &server, &["cache", "list"])), (0, "the cache is empty\n".to_owned()));
    assert_eq!(masked(run(cache, &server, &["cache", "path"])), (0, "CACHE\n".to_owned()));
    assert_eq!(masked(run(cache, &server, &["verify", SWIN])), (1, "the cache is empty\n".to_owned()));
    let (status, text) = masked(run(cache, &server, &["fetch", SWIN, "--offline"]));
    assert_eq!(status, 2);
    assert_snapshot!(text, @r"
    backbones/swin-base-patch4-window7-224/model.safetensors: not fetched
    error: `backbones/swin-base-patch4-window7-224/model.safetensors` is not in the cache
      expected: the file `CACHE/backbones/swin-base-patch4-window7-224/model.safetensors`
      found: nothing, and downloads are disabled
    hint: fetch it once with network access; `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` disable downloads too
    ");
    let (status, text) = masked(run(cache, &server, &["fetch", SWIN, "--locked"]));
    assert_eq!(status, 2);
    assert_snapshot!(text, @r"
    backbones/swin-base-patch4-window7-224/model.safetensors: not fetched
    error: `backbones/swin-base-patch4-window7-224/model.safetensors` is not pinned
      expected: its sha256 in `CACHE/laps-zoo.lock`
      found: none, and new pins are not allowed
    hint: allow new pins once, and check the pin
    ");
    let (status, text) = masked(run(cache, &server, &["fetch", SWIN]));
    assert_eq!(status, 0);
    assert_snapshot!(text, @r"
    CACHE/backbones/swin-base-patch4-window7-224/model.safetensors
    BYTES bytes, sha256 SHA256, verified on first fetch: nobody has published a hash
    backbones/swin-base-patch4-window7-224/model.safetensors: from 0 of BYTES bytes
    backbones/swin-base-patch4-window7-224/model.safetensors: BYTES bytes, verified on first fetch: nobody has published a hash
    ");
    assert_eq!(masked(run(cache, &server, &["fetch", SWIN, "--locked", "--offline", "--quiet"])).0, 0);
    assert_snapshot!(masked(run(cache, &server, &["cache", "list"])).1, @r"
    backbones/swin-base-patch4-window7-224/model.safetensors: BYTES bytes, sha256 SHA, verified on first fetch: nobody has published a hash, in the cache
    ");
    assert_snapshot!(masked(run(cache, &server, &["verify", SWIN])).1, @r"
    backbones/swin-base-patch4-window7-224/model.safetensors: good, sha256 SHA256
    ");

    fs_err::write(cache.join(format!("backbones/{SWIN}/pytorch_model.bin.part")), b"half").unwrap();
    assert_snapshot!(masked(run(cache, &server, &["cache", "prune"])).1, @r"
    deleted backbones/swin-base-patch4-window7-224/pytorch_model.bin.part (4 bytes): interrupted download
    ");
    assert_eq!(masked(run(cache, &server, &["cache", "prune"])), (0, "nothing to delete\n".to_owned()));

    let mut damaged = bytes.to_vec();
    damaged[100] ^= 1;
    fs_err::write(weights_path(cache), damaged).unwrap();
    let (status, text) = masked(run(cache, &server, &["verify", "--all"]));
    assert_eq!(status, 1);
    assert!(
        text.contains("model.safetensors: bad: `backbones/") && text.contains("is not the expected file"),
        "{text}"
    );
    assert_eq!(masked(run(cache, &server, &["fetch", "f30k_vit_384"])).0, 2);
    assert_snapshot!(masked(run(cache, &server, &["fetch", "f30k"])).1, @r"
    error: nothing to fetch under the name `f30k`
      expected: `clip_vit_b16`, `clip_vit_b32`, `clip_vit_l14`, `coco_swin`, `coco_vit`, `coco_vit_384_d2s`, `coco_vit_384_d2s_pretrain`, `coco_vit_480_d2s`, `coco_vit_480_d2s_pretrain`, `f30k_swin`, `f30k_swin_384_d2s`, `f30k_swin_384_d2s_pretrain`, `f30k_swin_480_d2s`, `f30k_swin_480_d2s_pretrain`, `f30k_vit`, `f30k_vit_384_d2s`, `f30k_vit_384_d2s_pretrain`, `f30k_vit_480_d2s`, `f30k_vit_480_d2s_pretrain`, `bert-base-uncased`, `clip-vit-base-patch16`, `clip-vit-base-patch32`, `clip-vit-large-patch14`, `swin-base-patch4-window7-224`, `vit-base-patch16-224-in21k`
      found: `f30k`
    hint: did you mean `f30k_vit`?
    ");
}

#[test]
fn unusable_environment_variables_fail_at_once_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(|_| Reply::new(500, ""));
    for (variable, value, found) in [
        ("HF_ENDPOINT", "hub.example", "relative URL without a base"),
        ("HF_ENDPOINT", "https://hub.example?token=1", "a query or a fragment"),
        ("LAPS_ZOO_MIRRORS", "ftp://mirror.example", "the scheme `ftp`"),
        ("HTTPS_PROXY", "quic://127.0.0.1:1", "the scheme `quic`"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem", "/nowhere/bundle.pem"),
        ("CURL_CA_BUNDLE", "/nowhere/bundle.pem", "/nowhere/bundle.pem"),
    ] {
        let mut command = command(folder.path(), &server);
        // The proxy and the certificates are only used for remote servers. Nothing is sent to this one.
        command.env("HF_ENDPOINT", "https://hub.invalid").env(variable, value).args(["fetch", SWIN, "--quiet"]);
        let run = finished(command.output().unwrap());
        assert_eq!(run.status, 2, "{}", run.stderr);
        let expected = format!("error: the environment variable `{variable}` has an unusable value\n  expected: ");
        assert!(run.stderr.starts_with(&expected) && run.stderr.contains(found), "{}", run.stderr);
        assert!(run.stderr.ends_with(&format!("hint: change or unset `{variable}`\n")), "{}", run.stderr);
    }
}

/// The proxy resolves the name of the server, so it is never looked up here.
#[test]
fn socks_proxy_is_used() {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread,
    };

    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(|_| Reply::new(500, ""));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = format!("socks5h://{address}");
    // RFC 1928: version 5 without authentication, then CONNECT to a name (type 3).
    let connection = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut read = |count: usize| {
            let mut bytes = vec![0; count];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        };
        let methods = read(2);
        read(usize::from(methods[1]));
        stream.write_all(&[5, 0]).unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[..4], [5, 1, 0, 3]);
        let mut name = vec![0; usize::from(head[4]) + 2];
        stream.read_exact(&mut name).unwrap();
        stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        (name, request)
    });
    let mut command = command(folder.path(), &server);
    command.env("HF_ENDPOINT", "http://hub.invalid").env("ALL_PROXY", proxy).args(["fetch", SWIN, "--quiet"]);
    let run = finished(command.output().unwrap());
    assert_eq!(run.status, 2, "{}", run.stderr);
    // Ends the thread if the proxy was not used.
    drop(TcpStream::connect(address));
    let (name, request) = connection.join().expect("the proxy was not used");
    assert_eq!((name.as_slice(), &request), (&b"hub.invalid\0\x50"[..], b"GET "), "{}", run.stderr);
    assert!(server.log().is_empty());
}

#[test]
fn offline_variables_disable_downloads() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(|_| Reply::new(500, ""));
    for (name, value) in [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "yes")] {
        let mut command = command(folder.path(), &server);
        let run = finished(command.env(name, value).args(["fetch", SWIN, "--quiet"]).output().unwrap());
        assert_eq!(run.status, 2);
        assert!(run.stderr.contains("downloads are disabled") && run.stderr.contains(name), "{}", run.stderr);
        assert!(server.log().is_empty());
    }
}

#[test]
fn data_with_a_wrong_hash_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(|_| Reply::new(200, "1000092795\n"));
    let data = folder.path().join("data");
    let run = run(folder.path(), &server, &["data", "fetch", "f30k", "--quiet", "--data", data.to_str().unwrap()]);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("has the wrong size") && run.stderr.contains("hint: "), "{}", run.stderr);
    let files = fs_err::read_dir(data.join("f30k/captions")).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<_> = files.filter(|name| !name.to_string_lossy().contains(".part")).collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn judgements_with_a_wrong_hash_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(|_| Reply::new(200, "not the package"));
    let run = run(folder.path(), &server, &["data", "fetch", "eccv", "cxc", "--quiet"]);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("/eccv_caption-0.1.0-py3-none-any.whl` has the wrong size"), "{}", run.stderr);
    assert!(server.log()[0].path.ends_with("/eccv_caption-0.1.0-py3-none-any.whl"), "{:?}", server.log());
    assert!(!folder.path().join("judgements/eccv_caption/eccv_caption-0.1.0-py3-none-any.whl").exists());
}

#[test]
fn data_check_reports_problems() {
    let entry = registry::find("f30k_vit").unwrap();
    let data = write_data(&entry.data);
    let server = TestServer::start(|_| Reply::new(500, ""));
    let run = run(data.path(), &server, &["data", "check", "f30k", "--quiet", "--data", data.path().to_str().unwrap()]);
    assert_eq!((run.status, run.stderr.as_str()), (1, ""));
    let (text, hash): (Vec<&str>, Vec<&str>) = run.stdout.lines().partition(|line| !line.starts_with("  data sha256 "));
    assert_eq!(hash.len(), 1, "{}", run.stdout);
    assert_snapshot!(text.join("\n"), @r"
    test: 5 images, 25 captions, expected 1000 and 5000
    dev: not found
    train: not found
    ");
}

#[test]
fn reproduce_downloads_the_image_archives_of_the_split() {
    let entry = registry::find("coco_swin").unwrap();
    let data = write_data(&entry.data);
    let root = data.path();
    let captions = root.join(&entry.data.captions);
    // The protocol `coco_1k` has folds of 1,000 images.
    let names: Vec<String> = (0..1000).map(|id| format!(r#""{id}": "val2014/{id}.jpg""#)).collect();
    fs_err::write(captions.join("id_mapping.json"), format!("{{{}}}", names.join(", "))).unwrap();
    let rows = |text: fn(usize) -> String| (0..5000).map(text).collect::<String>();
    fs_err::write(captions.join("testall_ids.txt"), rows(|row| format!("{}\n", row / 5))).unwrap();
    fs_err::write(captions.join("testall_caps.txt"), rows(|_| "a red star\n".to_owned())).unwrap();
    let server = TestServer::start(|_| Reply::new(404, ""));
    let arguments = |more: &'static str| {
        let fixed = ["reproduce", "coco_swin", "--quiet", "--checkpoint", "none.safetensors", "--data"];
        fixed.into_iter().chain([root.to_str().unwrap()]).chain(more.split_whitespace()).collect::<Vec<_>>()
    };
    let offline = run(root, &server, &arguments("--offline"));
    assert_eq!(offline.status, 2);
    assert!(offline.stderr.contains("`images/val2014.zip`"), "{}", offline.stderr);
    assert!(server.log().is_empty());
    let online = run(root, &server, &arguments(""));
    assert_eq!(online.status, 2);
    assert!(online.stderr.contains("val2014.zip") && online.stderr.contains("404"), "{}", online.stderr);
    let asked: Vec<_> = server.log().iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked, ["/zips/val2014.zip"]);

    fs_err::create_dir(root.join(&entry.data.images).join("val2014")).unwrap();
    assert_eq!(run(root, &server, &arguments("")).status, 2, "neither the checkpoint nor the images exist");
    assert_eq!(server.log().len(), 1);
}

const FILE: &str = "1CheckpointCheckpointCheckpoint01";

/// All steps: folder page, confirmation form, 800 MB with a dropped connection, check, conversion, evaluation.
#[test]
fn published_checkpoint_is_downloaded_from_drive_and_evaluated() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let entry = registry::find("f30k_vit").unwrap();
    let folder: TempDir = write_data(&entry.data);
    let (root, cache) = (folder.path(), folder.path().join("cache"));
    let published = root.join("model_best.pth");
    let parameters = with_poolers(models::parameters(&entry.model).unwrap(), 768, 768);
    let options = [("embed_size", 512.0), ("sparse_ratio", 0.5), ("aggr_ratio", 0.4)];
    write_checkpoint(&published, &parameters, &options);
    let bytes = fs_err::metadata(&published).unwrap().len();
    assert!(bytes > 780_000_000);

    let (served, bodies) = (published.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&bodies);
    let server = TestServer::start(move |request| {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        match request.path.split('?').next().unwrap() {
            "/embeddedfolderview" => Reply::page(
                200,
                &format!(
                    "<title>f30k_vit</title><div class='flip-entries'><a href='https://drive.google.com/file/d/{FILE}/view'>\
                     <div class='flip-entry-title'>model_best.pth</div></a></div>"
                ),
            ),
            "/download" if !query.contains("uuid=1") => Reply::page(
                200,
                &format!(
                    "<form id='download-form' action='https://drive.usercontent.google.com/download'><input type='hidden' \
                     name='id' value='{FILE}'><input type='hidden' name='uuid' value='1'></form>"
                ),
            ),
            "/download" => {
                let reply = Reply::disk(request, &served, "").with("Content-Disposition", "attachment");
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => reply.ending(End::Cut(bytes / 2)),
                    _ => reply,
                }
            }
            _ => Reply::new(404, ""),
        }
    });
    let data = root.to_str().unwrap();
    let arguments = ["reproduce", "f30k_vit", "--data", data, "--limit", "1", "--device", "cpu"];
    let evaluated = run(&cache, &server, &arguments);
    assert_eq!(evaluated.status, 0, "{}", evaluated.stderr);
    assert!(evaluated.stdout.contains("checkpoint model_best.safetensors"), "{}", evaluated.stdout);
    let key = "checkpoints/f30k_vit/model_best.pth";
    let cut = format!("{key}: `https://drive.google.com/file/d/{FILE}` is truncated at {} of {bytes} bytes", bytes / 2);
    assert!(evaluated.stderr.contains(&cut), "{}", evaluated.stderr);
    assert_eq!(bodies.load(Ordering::SeqCst), 2, "resumed after the cut");
    let before = server.log().len();

    let listed = run(&cache, &server, &["list"]);
    assert!(listed.stdout.contains("ready, pinned"), "{}", listed.stdout);
    let info = run(&cache, &server, &["info", "f30k_vit"]);
    assert!(
        info.stdout.contains("  cache       ready; ") && info.stdout.contains("; pinned as sha256 "),
        "{}",
        info.stdout
    );
    let verified = run(&cache, &server, &["verify", "f30k_vit"]);
    assert_eq!(verified.status, 0, "{}", verified.stdout);
    assert_eq!(verified.stdout.matches("fits its entry").count(), 2, "{}", verified.stdout);
    let pruned = run(&cache, &server, &["cache", "prune"]);
    assert!(pruned.stdout.contains(&format!("deleted {key} ({bytes} bytes): converted")), "{}", pruned.stdout);
    // Nothing is requested again, even after the original is deleted.
    let again = run(&cache, &server, &["fetch", "f30k_vit", "--offline", "--quiet"]);
    assert_eq!((again.status, again.stderr.as_str()), (0, ""));
    assert_eq!(server.log().len(), before);
}
