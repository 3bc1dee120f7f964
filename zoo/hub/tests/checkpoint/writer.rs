//! Writes files as `torch.save` does, and files that it never writes.

use std::io::{Cursor, Write};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A pickle under construction.
#[derive(Clone, Default)]
pub(crate) struct PickleWriter(pub(crate) Vec<u8>);

impl PickleWriter {
    pub(crate) fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    pub(crate) fn int(self, value: usize) -> Self {
        self.op(b"J").op(&i32::try_from(value).unwrap().to_le_bytes())
    }

    pub(crate) fn float(self, value: f64) -> Self {
        self.op(b"G").op(&value.to_be_bytes())
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    fn sizes(self, sizes: &[usize]) -> Self {
        sizes.iter().fold(self.op(b"("), |pickle, &size| pickle.int(size)).op(b"t")
    }

    /// A tensor as a view of the storage `key` of `elements` elements.
    pub(crate) fn tensor(
        self,
        class: &str,
        key: &str,
        elements: usize,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Self {
        let pickle = self.global("torch._utils", "_rebuild_tensor_v2").op(b"((").text("storage").global("torch", class);
        let pickle = pickle.text(key).text("cuda:0").int(elements).op(b"tQ").int(offset).sizes(shape).sizes(strides);
        pickle.op(b"\x89").global("collections", "OrderedDict").op(b")RtR")
    }

    /// A row-major tensor that is the whole storage `key`.
    pub(crate) fn whole(self, class: &str, key: &str, shape: &[usize]) -> Self {
        let strides: Vec<usize> = (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
        self.tensor(class, key, shape.iter().product(), 0, shape, &strides)
    }
}

/// The archive that `torch.save` makes of a pickle and storages.
pub(crate) fn torch_zip(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    torch_zip_with(CompressionMethod::Stored, pickle, storages)
}

pub(crate) fn torch_zip_with(method: CompressionMethod, pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    torch_zip_named("archive", method, pickle, storages)
}

/// As [`torch_zip_with`], for a file of the name `<stem>.pth`.
pub(crate) fn torch_zip_named(
    stem: &str,
    method: CompressionMethod,
    pickle: &[u8],
    storages: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(method);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file(format!("{stem}/data.pkl"), options).unwrap();
    writer.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        writer.start_file(format!("{stem}/data/{key}"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.start_file(format!("{stem}/version"), options).unwrap();
    writer.write_all(b"3\n").unwrap();
    writer.finish().unwrap().into_inner()
}

/// The stream that `torch.save` made before PyTorch 1.6.
pub(crate) fn torch_legacy(pickle: &[u8], storages: &[(&str, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    bytes.extend(PickleWriter::default().op(b"\x80\x02}(").text("little_endian").op(b"\x88u.").0);
    bytes.extend_from_slice(pickle);
    let keys = storages.iter().fold(PickleWriter::default().op(b"\x80\x02]("), |list, (key, ..)| list.text(key));
    bytes.extend(keys.op(b"e.").0);
    for (_, elements, data) in storages {
        bytes.extend((*elements as u64).to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

/// A safetensors file of f32 tensors.
pub(crate) fn safetensors(tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}
