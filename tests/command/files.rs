//! Input files for the command.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use laps_data::scenes::{self, DrawnConfig, DrawnSplit};
use laps_model::params::{Init, Parameter};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::writer::PickleWriter;

/// Path of a file in the repository.
pub(crate) fn repository_file(path: &str) -> PathBuf {
    Path::new(crate::REPOSITORY).join(path)
}

/// Data in the layout of the drawn entries: `images` scenes with five captions each, as the split `test`.
pub(crate) fn scenes(images: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = DrawnConfig { seed: 7, train: 1, dev: 1, test: images };
    scenes::write(folder.path(), &config, &[DrawnSplit::Test]).unwrap();
    folder
}

/// The tensors of the embedded checkpoint of `shapes_vit`.
pub(crate) fn shapes_vit() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = fs_err::read(repository_file("checkpoints/shapes_vit.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        (name.to_owned(), view.shape().to_vec(), values.collect())
    });
    tensors.collect()
}

/// Writes a checkpoint in the authors' layout, `{model, opt, epoch, best_rsum, Eiters}`, to `path`. `values` gives the
/// bytes of each tensor, which are written directly to the file.
pub(crate) fn authors_checkpoint(
    path: &Path,
    parameters: &[Parameter],
    options: &[(&str, f64)],
    mut values: impl FnMut(&Parameter, &mut dyn Write),
) {
    let mut pickle =
        PickleWriter::default().op(b"\x80\x02}(").text("model").global("collections", "OrderedDict").op(b")R(");
    for (key, parameter) in parameters.iter().enumerate() {
        pickle = pickle.text(&parameter.name).whole("FloatStorage", &key.to_string(), &parameter.shape);
    }
    pickle = pickle.op(b"u").text("opt").global("argparse", "Namespace").op(b")\x81}(");
    for (key, value) in options {
        pickle = match value.fract() == 0.0 {
            true => pickle.text(key).int(*value as usize),
            false => pickle.text(key).float(*value),
        };
    }
    let pickle = pickle.op(b"ub").text("epoch").int(13).text("best_rsum").float(507.3).text("Eiters").int(29_000);

    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    let mut archive = ZipWriter::new(BufWriter::new(fs_err::File::create(path).unwrap()));
    archive.start_file("model_best/data.pkl", options).unwrap();
    archive.write_all(&pickle.op(b"u.").0).unwrap();
    for (key, parameter) in parameters.iter().enumerate() {
        archive.start_file(format!("model_best/data/{key}"), options).unwrap();
        values(parameter, &mut archive);
    }
    archive.start_file("model_best/version", options).unwrap();
    archive.write_all(b"3\n").unwrap();
    archive.finish().unwrap().flush().unwrap();
}

/// The same parameters plus two per pooler, which the authors' checkpoints contain and the model does not have.
pub(crate) fn with_poolers(parameters: Vec<Parameter>, image_width: usize, text_width: usize) -> Vec<Parameter> {
    let pooler = |encoder: &str, width: usize| {
        [("weight", vec![width, width]), ("bias", vec![width])].map(|(name, shape)| Parameter {
            name: format!("{encoder}.pooler.dense.{name}"),
            shape,
            init: Init::Normal,
        })
    };
    let more = [pooler("img_enc.visual_encoder", image_width), pooler("txt_enc.bert", text_width)];
    parameters.into_iter().chain(more.into_iter().flatten()).collect()
}

/// Writes embeddings of another program: `images` and `captions`, each with its shape, and the `lengths` of the captions.
pub(crate) fn foreign_embeddings(
    path: &Path,
    images: (&[usize], &[f32]),
    captions: (&[usize], &[f32]),
    lengths: &[usize],
) {
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let [image_bytes, caption_bytes] = [bytes(images.1), bytes(captions.1)];
    let length_bytes: Vec<u8> = lengths.iter().flat_map(|&length| (length as i64).to_le_bytes()).collect();
    let tensors = [
        ("images", TensorView::new(Dtype::F32, images.0.to_vec(), &image_bytes).unwrap()),
        ("captions", TensorView::new(Dtype::F32, captions.0.to_vec(), &caption_bytes).unwrap()),
        ("lengths", TensorView::new(Dtype::I64, vec![lengths.len()], &length_bytes).unwrap()),
    ];
    fs_err::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

/// A matrix as `.npy` of float32, in row-major or column-major (Fortran) order.
pub(crate) fn npy(values: &[f32], shape: [usize; 2], is_fortran: bool) -> Vec<u8> {
    let order = if is_fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': ({}, {}), }}", shape[0], shape[1]);
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}
