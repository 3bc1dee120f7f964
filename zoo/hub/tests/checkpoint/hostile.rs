//! Hostile files: programs are refused and named, false lengths cost neither memory nor time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use laps_hub::checkpoint::CheckpointError;
use zip::CompressionMethod;

use crate::{
    message, open,
    writer::{PickleWriter, torch_legacy, torch_zip, torch_zip_with},
};

/// Every encoding of a call of `module.name` with a shell command.
fn programs(module: &str, name: &str, command: &str) -> Vec<Vec<u8>> {
    let (length, lengths) = (|text: &str| text.len() as u8, |text: &str| (text.len() as u32).to_le_bytes());
    let mut stack = vec![0x80, 4, 0x8c, length(module)];
    stack.extend(module.as_bytes());
    stack.extend([0x8c, length(name)]);
    stack.extend(name.as_bytes());
    stack.extend([0x93, b'X']);
    stack.extend(lengths(command));
    stack.extend(command.as_bytes());
    stack.extend([0x85, b'R', b'.']);
    let reduce = format!("c{module}\n{name}\n(S'{command}'\ntR.").into_bytes();
    let instance = format!("(S'{command}'\ni{module}\n{name}\n.").into_bytes();
    let protocol_2 = [&b"\x80\x02"[..], &reduce].concat();
    vec![reduce, instance, protocol_2, stack]
}

/// A file of each container with `program` as the pickle, and in place of the weights, the options and an attribute.
fn carriers(program: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let inner = program.strip_suffix(b".").unwrap();
    let inner = inner.strip_prefix(b"\x80\x02").or(inner.strip_prefix(b"\x80\x04")).unwrap_or(inner);
    let weights =
        |pickle: PickleWriter| pickle.text("model").op(b"}").text("a").whole("FloatStorage", "0", &[1]).op(b"s");
    let after = weights(PickleWriter::default().op(b"\x80\x04}(")).text("opt").op(inner).op(b"u.").0;
    let popped = weights(PickleWriter::default().op(b"\x80\x04").op(inner).op(b"0}(")).op(b"u.").0;
    let attribute = weights(PickleWriter::default().op(b"\x80\x04}(")).op(b"u}").text("x").op(inner).op(b"sb.").0;
    let data = || vec![("0", vec![0; 4])];
    let legacy_data = || vec![("0", 1, vec![0; 4])];
    vec![
        ("bare", program.to_vec()),
        ("zip", torch_zip(program, &[])),
        ("zip after the weights", torch_zip(&after, &data())),
        ("zip, popped", torch_zip(&popped, &data())),
        ("zip, attribute", torch_zip(&attribute, &data())),
        ("legacy", torch_legacy(program, &[])),
        ("legacy after the weights", torch_legacy(&after, &legacy_data())),
        ("legacy in front", [program, &torch_legacy(&after, &legacy_data())].concat()),
    ]
}

#[test]
fn pickle_that_calls_a_program_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = format!("touch {}", trace.display());
    for (module, name) in
        [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("torch.hub", "load")]
    {
        for program in programs(module, name, &command) {
            for (carrier, bytes) in carriers(&program) {
                let error = open(&bytes).expect_err(carrier);
                let asked = format!("{module}.{name}");
                assert!(
                    matches!(&error, CheckpointError::Refused { name, .. } if *name == asked),
                    "{carrier}, {asked}: {error}"
                );
                assert!(!Path::new(&trace).exists(), "{carrier}, {asked}: executed");
            }
        }
    }
    // The control: the command leaves its trace when it is executed.
    assert!(std::process::Command::new("sh").arg("-c").arg(&command).status().unwrap().success());
    assert!(trace.exists());
}

#[test]
fn refusal_names_the_global() {
    let error = open(&torch_zip(b"cos\nsystem\n(S'true'\ntR.", &[])).unwrap_err();
    insta::assert_snapshot!(message(&error), @r"
    `file` asks for `os.system` and was refused
      expected: tensors and plain data
      found: a pickle that needs `os.system`
    hint: nothing of the file was executed; trust it only from its authors, and ask them to save the state dict alone
    ");
}

#[test]
fn names_similar_to_allowed_ones_are_refused() {
    for (module, name) in [
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.fromkeys"),
        ("argparse", "Namespace.__init__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("builtins", "getattr"),
        ("torch ", "Size"),
        ("", "os.system"),
    ] {
        let pickle = PickleWriter::default().op(b"\x80\x02").global(module, name).op(b".");
        let error = open(&torch_zip(&pickle.0, &[])).unwrap_err();
        assert!(matches!(error, CheckpointError::Refused { .. }), "{module}.{name}: {error}");
    }
}

#[test]
fn allowed_names_are_called_only_as_torch_does() {
    let argument = |pickle: PickleWriter| pickle.op(b"(").text("touch").op(b"tR.");
    for (module, name) in [
        ("argparse", "Namespace"),
        ("torch", "FloatStorage"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "Size"),
    ] {
        let pickle = argument(PickleWriter::default().op(b"\x80\x02").global(module, name));
        let error = open(&torch_zip(&pickle.0, &[])).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{module}.{name}: {error}");
    }
}

/// Peak memory of this process in bytes.
fn peak() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("VmHWM: 0 kB").to_owned();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn false_lengths_cost_neither_memory_nor_time() {
    let pickle = |bytes: &[&[u8]]| PickleWriter::default().op(b"\x80\x04").op(&bytes.concat()).0;
    let huge = u64::MAX.to_le_bytes();
    let long = u32::MAX.to_le_bytes();
    let nested = |opcode: &[u8], count: usize| [&b"\x80\x04)"[..], &opcode.repeat(count), b"."].concat();
    // Each list has the one before it ten times: 10^20 values when it is expanded.
    let mut bomb = b"\x80\x04}(\x8c\x03opt}\x8c\x04bomb](K\x01e".to_vec();
    (0..20_u8).for_each(|index| {
        bomb.extend([&[b'q', index, b'0', b']', b'('][..], &[b'h', index].repeat(10), b"e"].concat())
    });
    bomb.extend(
        PickleWriter::default().op(b"s").text("model").op(b"}").text("a").whole("FloatStorage", "0", &[1]).op(b"su.").0,
    );
    let tensor = |elements: usize, shape: &[usize], strides: &[usize]| {
        let pickle =
            PickleWriter::default().op(b"\x80\x02}").text("a").tensor("FloatStorage", "0", elements, 0, shape, strides);
        torch_zip(&pickle.op(b"s.").0, &[("0", vec![0; 16])])
    };
    let zeros = vec![0_u8; 1 << 24];
    let pickles = [
        pickle(&[b"\x8d", &huge, b"abc"]),
        pickle(&[b"\x8e", &huge, b"abc"]),
        pickle(&[b"\x96", &huge, b"abc"]),
        pickle(&[b"\x95", &huge, b"."]),
        pickle(&[b"X", &long, b"abc"]),
        pickle(&[b"B", &long, b"abc"]),
        pickle(&[b"\x8b", &long, b"abc"]),
        nested(b"\x85", 900_000),
        nested(b"\x85", 3_000_000),
        b"(".repeat(3_000_000),
        [&b"\x80\x04]"[..], &b"2".repeat(3_000_000), b"."].concat(),
        [&b"\x80\x04N"[..], &b"\x94".repeat(3_000_000), b"."].concat(),
        [&b"c"[..], &b"x".repeat(3_000_000)].concat(),
        bomb.clone(),
    ];
    let mut files: Vec<Vec<u8>> = pickles.iter().map(|pickle| torch_zip(pickle, &[("0", vec![0; 4])])).collect();
    files.extend(pickles.iter().map(|pickle| torch_legacy(pickle, &[("0", 1, vec![0; 4])])));
    files.extend(pickles);
    files.push(tensor(1 << 30, &[1 << 30], &[1]));
    files.push(tensor(4, &[1 << 30], &[0]));
    files.push(tensor(4, &[1 << 20, 1 << 20, 1 << 20, 1 << 20], &[0, 0, 0, 0]));
    files.push([&huge[..], b"{\"a\":"].concat());
    files.push([&(50_u64 << 20).to_le_bytes()[..], b"{\"a\":", &zeros].concat());
    files.push([&(15_u64 << 20).to_le_bytes()[..], &b"{\"a\":".repeat(3 << 20)].concat());
    let header = br#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551615]}}"#;
    files.push([&(header.len() as u64).to_le_bytes()[..], header].concat());
    let header = br#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
    files.push([&(header.len() as u64).to_le_bytes()[..], header].concat());
    // A directory that states far too many entries, and an entry that states far too many bytes.
    let mut crowded = torch_zip(b"\x80\x02}.", &[]);
    let end = crowded.len() - 22;
    crowded[end + 8..end + 12].fill(0xfe);
    files.push(crowded);
    let mut swollen = torch_zip(b"\x80\x02}.", &[]);
    let entry = swollen.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    swollen[entry + 20..entry + 28].fill(0xf0);
    files.push(swollen);

    let before = peak();
    for (index, bytes) in files.iter().enumerate() {
        let start = Instant::now();
        let error = open(bytes).expect_err(&format!("file {index}"));
        let is_clear = matches!(error, CheckpointError::Damaged { .. } | CheckpointError::Foreign { .. });
        assert!(is_clear, "file {index}: {error}");
        // It takes milliseconds; the limit leaves room for a busy machine.
        assert!(start.elapsed() < Duration::from_secs(5), "file {index}: {:?}", start.elapsed());
    }
    // The longest accepted pickle needs some tens of megabytes; the false lengths are gigabytes and more. Other tests of
    // this process count too.
    assert!(peak() - before < 512 << 20, "{} MiB", (peak() - before) >> 20);
}

#[test]
fn compressed_pickle_is_bounded() {
    // 64 MiB of opcodes in 64 kB.
    let bytes = torch_zip_with(CompressionMethod::Deflated, &vec![b'('; 64 << 20], &[]);
    assert!(bytes.len() < 1 << 20);
    let error = open(&bytes).unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
}
