//! Uploads: nothing is sent without `--yes`, and the token is not shown. The protocol is tested in laps-hub.

use laps_files::sha256_hex;

use crate::{
    server::{Reply, TestServer},
    support::{command, finished, laps_zoo},
};

#[test]
fn plan_sends_nothing_and_an_upload_needs_a_token_that_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let [result, out, token] = ["result.json", "model", "token"].map(|name| folder.path().join(name));
    let reproduced =
        ["reproduce", "shapes_vit", "--limit", "4", "--engine", "rust", "--quiet", "--json", result.to_str().unwrap()];
    assert_eq!(laps_zoo(reproduced).status, 0);
    let server = TestServer::start(|request| {
        let token = request.header("authorization").unwrap_or_default().to_owned();
        Reply::new(401, serde_json::json!({ "error": format!("{token} is unknown") }).to_string())
    });
    let push = |more: &[&str]| {
        let mut command = command();
        command.env("HF_ENDPOINT", server.url()).env_remove("HF_TOKEN").env("HF_HOME", folder.path());
        finished(command.args(["push", "shapes_vit", "someone/laps"]).arg(&result).args(more).output().unwrap())
    };
    let plan = push(&["--out", out.to_str().unwrap()]);
    assert_eq!((plan.status, plan.stderr.as_str()), (0, ""));
    assert!(server.log().is_empty());
    let card = fs_err::read(out.join("README.md")).unwrap();
    let line = format!("{:>12}  {}  README.md\n", card.len(), &sha256_hex(&card)[..12]);
    assert!(plan.stdout.contains(&line), "{}", plan.stdout);
    assert!(plan.stdout.contains(" for `someone/laps`; nothing was sent, pass --yes to upload\n"), "{}", plan.stdout);

    let without = push(&["--yes"]);
    assert_eq!(without.status, 2);
    assert!(without.stderr.contains("an upload needs a token"), "{}", without.stderr);
    assert!(server.log().is_empty());
    fs_err::write(&token, "hf_secret\n").unwrap();
    let refused = push(&["--yes", "--quiet", "--token-file", token.to_str().unwrap()]);
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("(Bearer [token] is unknown)"), "{}", refused.stderr);
    assert_eq!(server.log()[0].header("authorization"), Some("Bearer hf_secret"));
}
