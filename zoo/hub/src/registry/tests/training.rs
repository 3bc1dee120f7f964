use super::{CONTRACT, edited, printed, read};
use crate::registry::{Entry, Origin, TrainConfig, TrainPrecision, find, names};

/// The contract with a section `train` in line 9.
fn with_train(section: &str) -> Result<Entry, crate::registry::RegistryError> {
    edited("references: { }", &format!("train: {section}"))
}

fn refused(section: &str) -> String {
    printed(&with_train(section).unwrap_err())
}

fn unset(setting: &str) -> String {
    printed(&read(CONTRACT).unwrap().with_settings(&[setting]).unwrap_err())
}

#[test]
fn defaults_are_the_recipe_of_the_authors() {
    assert_eq!(read(CONTRACT).unwrap().train, TrainConfig::default());
    assert_eq!(with_train("").unwrap().train, TrainConfig::default());
    let found = with_train("{ batch_size: 32, precision: bf16 }").unwrap().train;
    assert_eq!(found, TrainConfig { batch_size: 32, precision: TrainPrecision::Bf16, ..TrainConfig::default() });
    let published = TrainConfig { batch_size: 128, ..TrainConfig::default() };
    for (name, batch_size) in [("f30k_vit", 128), ("f30k_swin", 128), ("coco_vit", 256), ("coco_swin", 256)] {
        assert_eq!(find(name).unwrap().train, TrainConfig { batch_size, ..published.clone() });
    }
    assert!(!find("shapes_vit").unwrap().train.image_augmentation);
}

#[test]
fn invalid_recipe_is_rejected_with_its_key() {
    insta::assert_snapshot!(refused("{ batchsize: 3 }").lines().filter(|line| !line.contains("expected")).collect::<Vec<_>>().join("\n"), @r"
    `models/mine.yaml`, line 9: there is no key `train.batchsize`
      found: `batchsize`
    hint: did you mean `batch_size`?
    ");
    insta::assert_snapshot!(refused("{ batch_size: 1 }"), @r"
    `models/mine.yaml`, line 9: the value of `train.batch_size` cannot be used
      expected: at least 2 and at most 1073741824
      found: `1`
    ");
    insta::assert_snapshot!(refused("{ learning_rate: .nan }"), @r"
    `models/mine.yaml`, line 9: the value of `train.learning_rate` cannot be used
      expected: more than 0 and at most 1
      found: `NaN`
    ");
    insta::assert_snapshot!(refused("{ decay_epochs: [9, 9] }"), @r"
    `models/mine.yaml`, line 9: the value of `train.decay_epochs` cannot be used
      expected: epochs in ascending order, each once
      found: `[9, 9]`
    ");
    insta::assert_snapshot!(refused("{ precision: f16 }"), @r"
    `models/mine.yaml`, line 9: the value of `train.precision` cannot be used
      expected: one of `f32`, `bf16`, `fp16`
      found: `f16`
    hint: did you mean `fp16`?
    ");
    insta::assert_snapshot!(refused("{ freeze_backbones: 1 }"), @r"
    `models/mine.yaml`, line 9: the value of `train.freeze_backbones` cannot be used
      expected: a boolean
      found: `1`
    ");
    for (key, value) in [
        ("epochs", "0"),
        ("accumulate", "0"),
        ("neighbours", "0"),
        ("save_every", "0"),
        ("learning_rate", "0"),
        ("backbone_lr_ratio", "-1"),
        ("decay_rate", "1.5"),
        ("weight_decay", "1"),
        ("margin", "-0.1"),
        ("ratio_weight", ".inf"),
        ("grad_clip", "0"),
        ("dropout", "1"),
        ("drop_path", "-0.5"),
        ("seed", "-1"),
    ] {
        let text = refused(&format!("{{ {key}: {value} }}"));
        assert!(text.starts_with(&format!("`models/mine.yaml`, line 9: the value of `train.{key}` cannot")), "{text}");
    }
}

#[test]
fn settings_change_only_the_recipe() {
    let entry = read(CONTRACT).unwrap();
    let settings = ["train.epochs=1", "train.decay_epochs=[2, 4]", "train.epochs = 3", "train.precision=fp16"];
    let set = entry.clone().with_settings(&settings).unwrap();
    let mut expected = entry.clone();
    expected.train =
        TrainConfig { epochs: 3, decay_epochs: vec![2, 4], precision: TrainPrecision::Fp16, ..TrainConfig::default() };
    assert_eq!(set, expected);
    assert_eq!(entry.clone().with_settings(&[""; 0]).unwrap(), entry);
}

#[test]
fn invalid_setting_is_rejected_like_a_file() {
    let without_list =
        |text: String| text.lines().filter(|line| !line.contains("expected: `epochs`")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(without_list(unset("train.batchsize=128")), @r"
    setting `train.batchsize=128`: there is no key `train.batchsize`
      found: `batchsize`
    hint: did you mean `batch_size`?
    ");
    insta::assert_snapshot!(unset("model.embed_size=128"), @r"
    setting `model.embed_size=128`: there is no key `model`
      expected: `train`
      found: `model`
    ");
    insta::assert_snapshot!(unset("batch_size=128"), @r"
    setting `batch_size=128`: there is no key `batch_size`
      expected: `train`
      found: `batch_size`
    ");
    insta::assert_snapshot!(unset("train.batch_size"), @r"
    setting `train.batch_size`: the value of `KEY=VALUE` cannot be used
      expected: `=` between a key and its value
      found: `train.batch_size`
    ");
    insta::assert_snapshot!(unset("train.batch_size=many"), @r"
    setting `train.batch_size=many`: the value of `train.batch_size` cannot be used
      expected: a whole number, not negative
      found: the text `many`
    ");
    insta::assert_snapshot!(unset("train.batch_size="), @r"
    setting `train.batch_size=`: the value of `train.batch_size` cannot be used
      expected: a whole number, not negative
      found: nothing
    ");
    insta::assert_snapshot!(unset("train.batch_size=0"), @r"
    setting `train.batch_size=0`: the value of `train.batch_size` cannot be used
      expected: at least 2 and at most 1073741824
      found: `0`
    ");
    insta::assert_snapshot!(unset("train=5"), @r"
    setting `train=5`: the value of `train` cannot be used
      expected: a key of this section, such as `train.epochs`
      found: `train=5`
    ");
    insta::assert_snapshot!(unset("train.epochs=[1"), @r"
    setting `train.epochs=[1` is not valid YAML
      cause: did not find expected ',' or ']' at line 2 column 1, while parsing a flow sequence
    ");
    insta::assert_snapshot!(unset("train.epochs.last=1"), @r"
    setting `train.epochs.last=1`: the value of `train.epochs` cannot be used
      expected: a whole number, not negative
      found: a mapping
    ");
}

#[test]
fn run_file_repeats_the_configuration_of_the_run() {
    for entry in names().into_iter().map(|name| find(name).unwrap()).chain([read(CONTRACT).unwrap()]) {
        let set = entry.clone().with_settings(&["train.learning_rate=3e-5"]).unwrap();
        assert_eq!(set.config_sha256, entry.config_sha256);
        assert_ne!(set.run_sha256().unwrap(), entry.run_sha256().unwrap());
        let text = set.run_file().unwrap();
        assert!(text.lines().next().unwrap().contains(&set.run_sha256().unwrap()));
        let again = Entry::from_yaml(Origin::File("run/entry.yaml".into()), &text).unwrap();
        assert_eq!((&again.name, again.run_canonical().unwrap()), (&set.name, set.run_canonical().unwrap()));
    }
}
