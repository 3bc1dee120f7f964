//! `--help`, `list`, `info` and `doctor`.

use crate::support::laps_zoo;

/// Standard output, without the spaces that end empty lines of a help text.
fn printed(arguments: &[&str]) -> String {
    let run = laps_zoo(arguments);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
    run.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn help_names_the_commands() {
    insta::assert_snapshot!(printed(&["--help"]), @r"
    Reproducible model zoo and benchmark harness for LAPS image-text retrieval

    Usage: laps-zoo <COMMAND>

    Commands:
      list         List the entries of the zoo
      info         Show an entry: model, parameters, data, checkpoint and published recalls
      doctor       Show the libraries, devices and threads of this machine, and report what is missing
      fetch        Download a published checkpoint or a pretrained encoder, verify it, and convert
                   checkpoints to safetensors
      verify       Hash the files in the cache again, and check checkpoints against their entries,
                   offline
      convert      Convert a checkpoint to safetensors, with its options and the hash of its source
      cache        Inspect or clean the cache of downloaded files
      data         Download, check or import a data set
      reproduce    Evaluate a checkpoint and compare its recalls with the published ones
      evaluate     Compute recalls of a similarity matrix, or of embeddings and a head, from another
                   program
      suite        Run a list of evaluations, keep their results, and write one table and one report
      table        Print results of `reproduce --json` and `evaluate --json` as the tables of the paper,
                   or compare two of them
      report       Write results of `reproduce --json` and `evaluate --json` as an HTML report with
                   charts and the hardest failures
      card         Write a model card in Markdown: description, recipe, recalls, licence and known
                   problems
      push         Upload a model to a Hugging Face repository: weights, entry, card, results and graphs
      train        Train the model of an entry
      launch       Start the processes of a distributed run, as torchrun does, without Python
      export       Export an entry to ONNX, and compare the graphs with the model
      embed        Write embeddings of images or captions as safetensors or NumPy files
      score        Compute the exact similarities of images and captions
      explain      Show which patches of an image match which words of a caption
      index        Create or update a search index of images or captions
      search       Search an index of images by text or image, or an index of captions by image
      serve        Serve search, embeddings, scores and explanations over HTTP, with a page for the
                   browser
      bench        Benchmark an entry, or compare deterministic measures with the baselines
      completions  Print a shell completion script
      man          Print the manual page, or write one per command
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    ");
    insta::assert_snapshot!(printed(&["reproduce", "--help"]), @r"
    Evaluate a checkpoint and compare its recalls with the published ones

    Usage: laps-zoo reproduce [OPTIONS] <ENTRY>

    Arguments:
      <ENTRY>
              Entry name, or path to an entry YAML file

    Options:
          --checkpoint <FILE>
              Checkpoint (.safetensors or .pth) [default: the embedded one, or download the published
              one]

          --data <DIR>
              Root of the caption and image folders [default: the folder of the entry file]

          --data-source <LAYOUT>
              Layout of the data: laps, karpathy, coco, parquet, kaggle, webdataset, folder, authors,
              docci, dci, urban1k or sharegpt4v [default: the entry's]

          --split <SPLIT>
              Split to evaluate [default: the entry's test split]

          --truncate
              Truncate captions that are longer than the text encoder has positions, and count them in
              the result

          --unpadded
              Encode every caption without padding, for a head whose caption vectors depend on it
              (d2s_vse)

          --limit <N>
              Evaluate only the first N images of the split and their captions

          --engine <ENGINE>
              Engine that computes the embeddings: auto, torch, rust or ort

              [default: auto]

          --graphs <DIR>
              Folder of exported ONNX graphs; selects the engine ort [default: export them for this run]

          --precisions <LIST>
              With the engine ort, also evaluate these precisions (fp16, int8) and compare them with
              fp32

          --ep <PROVIDER>
              ONNX Runtime execution provider: auto, cpu, cuda or tensorrt; an unavailable one is an
              error

          --ep-memory <MIB>
              Memory limit in MiB of the CUDA arena or the TensorRT workspace

          --ep-cache <DIR>
              Folder in which TensorRT caches the engines that it builds

          --device <DEVICE>
              Device: auto, cpu or cuda:N

              [default: auto]

          --threads <N>
              Number of threads [default: one per CPU]

          --batch-size <N>
              Batch size of the encoders, in images or captions

              [default: 16]

          --memory-limit <MIB>
              Memory in MiB for computing similarities, not counting the embeddings and the matrix

              [default: 1024]

          --tolerance <POINTS>
              Largest accepted difference between a measured and a published recall, in points

              [default: 0.1]

          --sims <FILE>
              Write the similarity matrix as safetensors: key `sims`, images x captions. Rerun the
              command to resume from FILE.partial

          --run <FILE>
              Write the first 100 candidates of each query as a run file of TREC: images by their id,
              captions as ID#NUMBER

          --mteb <DIR>
              Write the result files of MTEB's tasks Flickr30kI2TRetrieval and Flickr30kT2IRetrieval to
              DIR

          --json <FILE>
              Write the result and its provenance as JSON

          --audit
              Also evaluate with captions shuffled within and between images, and look for side texts
              and for images of other splits

          --offline
              Do not use the network: fail if a file is not in the cache

          --dist-backend <NAME>
              Library that the processes of a distributed run communicate with

              Possible values:
              - auto: NCCL on GPUs and Gloo on CPUs
              - gloo: Over TCP
              - nccl: One GPU per process

              [default: auto]

          --dist-timeout <SECONDS>
              Seconds after which a process that does not answer ends a distributed run

              [default: 1800]

      -q, --quiet
              Hide progress output

      -h, --help
              Print help (see a summary with '-h')
    ");
    let version = printed(&["--version"]);
    assert!(version.starts_with(&format!("laps-zoo {} (commit ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("engines rust, ort"), "{version}");
}

#[test]
fn list_shows_every_entry() {
    let text = printed(&["list"]);
    // The rows of `configs/rows.yaml` are left out here.
    let files = laps_hub::registry::names_of_files();
    let is_shown = |line: &&str| match line.strip_prefix("│ ").and_then(|line| line.split_once(' ')) {
        Some((name, _)) => name == "entry" || files.contains(&name),
        None => true,
    };
    let shown: Vec<&str> = text.lines().filter(is_shown).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    ┌──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┐
    │ entry                                image encoder   embed size   parameters   protocols          checkpoint               size   paper rSum │
    ╞══════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════╡
    │ f30k_vit                             vit 224                512      195.5 M   f30k               to fetch         about 782 MB        507.3 │
    │ f30k_swin                            swin 224               512      196.6 M   f30k               to fetch         about 786 MB        536.3 │
    │ coco_vit                             vit 224                512      195.5 M   coco_5k, coco_1k   to fetch         about 782 MB        434.4 │
    │ coco_swin                            swin 224               512      196.6 M   coco_5k, coco_1k   to fetch         about 786 MB        465.8 │
    │ f30k_vit_384                         vit 384                512      195.8 M   f30k               none published              -        525.4 │
    │ f30k_swin_384                        swin 384               512      196.7 M   f30k               none published              -        545.3 │
    │ coco_vit_384                         vit 384                512      195.8 M   coco_5k, coco_1k   none published              -        442.2 │
    │ coco_swin_384                        swin 384               512      196.7 M   coco_5k, coco_1k   none published              -        470.1 │
    │ f30k_swin_1024                       swin 224              1024      196.6 M   f30k               none published              -            - │
    │ shapes_vit                           vit 60                  64      199.8 k   f30k               embedded                    -            - │
    │ shapes_swin                          swin 60                 64      174.2 k   f30k               embedded                    -            - │
    └──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
    ");
    let entries: serde_json::Value = serde_json::from_str(&printed(&["list", "--json"])).unwrap();
    let names: Vec<_> = entries.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, laps_hub::registry::names());
}

#[test]
fn info_shows_an_entry_and_its_published_recalls() {
    insta::assert_snapshot!(printed(&["info", "f30k_vit"]), @r"
    f30k_vit
      model       vit 224, embed size 512
      patches     196, of which 98 are kept and merged into 39
      parameters  image encoder 86.2 M, text encoder 109.3 M, alignment 57.4 k
      data        captions `f30k/captions`, images `f30k/flickr30k-images`, vocabulary `bert-base-uncased/vocab.txt`, below the data root
      evaluation  split `test` by f30k
      checkpoint  https://drive.google.com/drive/folders/1m3Y9TMkas2efSbeDV_ESci6uwMGd3MUY
      cache       not downloaded; about 782 MB; no published sha256, pinned by the first download
      licence     none stated
      config      sha256 3d84ffdeb047b96bf5711ba23169c162088ff007dfd5371c8726ddbccc993540
    ┌──────────────────────────────────────────────────────────────────────┐
    │ published      i2t R@1    R@5   R@10   t2i R@1    R@5   R@10    rSum │
    ╞══════════════════════════════════════════════════════════════════════╡
    │ paper, f30k       74.0   93.4   97.4      62.5   87.3   92.7   507.3 │
    │ readme, f30k      75.8   93.8      -      62.5   87.5      -       - │
    └──────────────────────────────────────────────────────────────────────┘
    ");
    insta::assert_snapshot!(printed(&["info", "coco_swin"]), @r"
    coco_swin
      model       swin 224, embed size 512
      patches     49, of which 40 are kept and merged into 23
      parameters  image encoder 87.3 M, text encoder 109.3 M, alignment 55.7 k
      data        captions `coco/captions`, images `coco/images`, vocabulary `bert-base-uncased/vocab.txt`, below the data root
      evaluation  split `testall` by coco_5k, coco_1k
      checkpoint  https://drive.google.com/drive/folders/1JvSVOjIQhofGveR2m8xPGiwhuFutyi15
      cache       not downloaded; about 786 MB; no published sha256, pinned by the first download
      licence     none stated
      config      sha256 576bbb565c2e94ec9fe4eece792617ed7ada94e7ffedc188e1905708bbccdbca
    ┌──────────────────────────────────────────────────────────────────────────┐
    │ published         i2t R@1    R@5   R@10   t2i R@1     R@5   R@10    rSum │
    ╞══════════════════════════════════════════════════════════════════════════╡
    │ paper, coco_5k       64.5   89.2   94.4      51.6    78.9   87.2   465.8 │
    │ readme, coco_5k      65.1   90.2      -      51.2    79.3      -       - │
    │ paper, coco_1k       84.0   97.6   99.3      72.1    93.7   97.3   544.1 │
    │ readme, coco_1k      83.9   97.9      -     71.9‡   93.7‡      -       - │
    └──────────────────────────────────────────────────────────────────────────┘
    ‡ inferred: the source prints it in a row where it cannot belong
    ");
    insta::assert_snapshot!(printed(&["info", "coco_vit"]), @r"
    coco_vit
      model       vit 224, embed size 512
      patches     196, of which 98 are kept and merged into 39
      parameters  image encoder 86.2 M, text encoder 109.3 M, alignment 57.4 k
      data        captions `coco/captions`, images `coco/images`, vocabulary `bert-base-uncased/vocab.txt`, below the data root
      evaluation  split `testall` by coco_5k, coco_1k
      checkpoint  https://drive.google.com/drive/folders/1C0XZ7FAoq47huy6gItcIV4XqudRVfe3n
      cache       not downloaded; about 782 MB; no published sha256, pinned by the first download
      licence     none stated
      config      sha256 15873d2d3f9ff41ddff4a60a211960b2834505cd863ebaf0f5e0afe854f448dd
    ┌──────────────────────────────────────────────────────────────────────────┐
    │ published         i2t R@1    R@5   R@10   t2i R@1     R@5   R@10    rSum │
    ╞══════════════════════════════════════════════════════════════════════════╡
    │ paper, coco_5k       57.5   84.0   90.8      44.5    74.0   83.6   434.4 │
    │ readme, coco_5k      56.1   83.9      -     43.9†   73.6†      -       - │
    │ paper, coco_1k       78.7   95.5   98.3      66.2    91.3   96.2   526.3 │
    │ readme, coco_1k      78.6   96.0      -      65.5    91.4      -       - │
    └──────────────────────────────────────────────────────────────────────────┘
    † restored: an earlier version of the source has it in the right place
    ");
    insta::assert_snapshot!(printed(&["info", "shapes_vit"]), @r"
    shapes_vit
      model       vit 60, embed size 64
      patches     36, of which 18 are kept and merged into 7
      parameters  image encoder 122.2 k, text encoder 76.5 k, alignment 1.0 k
      data        captions `captions`, images `images`, vocabulary `vocab.txt`, drawn into the cache, or below the data root
      evaluation  split `test` by f30k
      checkpoint  embedded
      config      sha256 164eacb67b988f1c73737406465036e5932a13190c00ca8c86cfe7c4806c9d68
    ┌──────────────────────────────────────────────────────────────────────────┐
    │ published           i2t R@1    R@5   R@10   t2i R@1    R@5   R@10   rSum │
    ╞══════════════════════════════════════════════════════════════════════════╡
    │ this recipe, f30k      62.5   93.0   99.5      63.9   97.0   99.4      - │
    └──────────────────────────────────────────────────────────────────────────┘
    ");
}

#[test]
fn info_prints_a_row_as_a_flat_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    for name in ["f30k_clip_b16", "coco_clip_l14", "f30k_vit"] {
        let text = printed(&["info", name, "--yaml"]);
        assert!(!text.contains("parts:"), "{text}");
        std::fs::write(&path, text).unwrap();
        let [own, file] = [name, path.to_str().unwrap()].map(|name| laps_hub::registry::find(name).unwrap());
        assert_eq!((own.config_sha256, own.name), (file.config_sha256, file.name));
    }
    let text = printed(&["info", "f30k_clip_b16"]);
    assert!(text.contains("  our choice  the image tokens: all of them, after post_layernorm"), "{text}");
}

/// The published recalls of a successor come with the audit of their queries.
#[test]
fn info_shows_the_audit_of_published_recalls() {
    let text = printed(&["info", "f30k_vit_384_d2s"]);
    let note =
        "\naudit of d2s_vse, does a text-to-image query contain a description of its test image: no (seen in code";
    assert!(text.contains(note), "{text}");
    assert!(!text.contains('§'), "{text}");
    let info: serde_json::Value = serde_json::from_str(&printed(&["info", "f30k_vit_384_d2s", "--json"])).unwrap();
    assert_eq!(info["audits"]["d2s_vse"]["mark"], "no");
    assert!(!printed(&["info", "f30k_vit"]).contains("audit"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    let text = printed(&["info", "f30k_vit", "--yaml"]);
    let (model, references) = text.split_once("\nreferences:").unwrap();
    assert!(references.contains("paper: vit_224"), "{references}");
    std::fs::write(&path, format!("{model}\nreferences: {{ seps: vit_224 }}\n")).unwrap();
    let text = printed(&["info", path.to_str().unwrap()]);
    assert!(text.contains("86.1§") && text.contains("\n§ audit: the queries contain descriptions"), "{text}");
    assert!(text.contains("\naudit of seps, does"), "{text}");
}

#[test]
fn info_lists_every_parameter() {
    let text = printed(&["info", "f30k_vit", "--parameters"]);
    let entry = laps_hub::registry::find("f30k_vit").unwrap();
    let parameters = laps_model::models::parameters(&entry.model).unwrap();
    for parameter in &parameters {
        assert!(text.contains(&format!("\n{} {:?}\n", parameter.name, parameter.shape)), "{}", parameter.name);
    }
    let info: serde_json::Value = serde_json::from_str(&printed(&["info", "f30k_vit", "--json"])).unwrap();
    assert_eq!(info["parameters"].as_array().unwrap().len(), parameters.len());
    assert_eq!(
        (info["patches"].as_u64(), info["kept"].as_u64(), info["groups"].as_u64()),
        (Some(196), Some(98), Some(39))
    );
}

/// `doctor` fails if something is missing, and prints a hint for it.
#[test]
fn doctor_reports_the_machine() {
    let run = laps_zoo(["doctor"]);
    let lines: Vec<(&str, &str)> = run
        .stdout
        .lines()
        .map(|line| line.split_once(' ').map(|(name, value)| (name, value.trim())).unwrap())
        .collect();
    let names: Vec<&str> = lines.iter().map(|&(name, _)| name).collect();
    let common = ["laps-zoo", "system", "cpu", "similarities", "libtorch"];
    assert_eq!(names, [&common[..], &["onnxruntime", "cache"]].concat(), "{}", run.stdout);
    let missing: Vec<&(&str, &str)> = lines.iter().filter(|(_, value)| value.starts_with("missing: ")).collect();
    assert!(missing.iter().all(|(_, value)| value.contains("; hint: ")), "{}", run.stdout);
    assert_eq!(run.status, i32::from(!missing.is_empty()), "{}", run.stdout);
}
