//! Encoding of graphs as ONNX files.

use std::{collections::BTreeSet, io::Write};

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use crate::{
    Error, Result,
    graph::{Attribute, ConstantData, Domain, Fact, Graph, Node, ValueId, ValueInfo},
    protobuf::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto::Dimension,
        tensor_shape_proto::dimension, type_proto,
    },
};

/// Largest protobuf message that readers accept.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

/// Writes a graph as an ONNX file, one constant at a time, so that memory holds at most one constant twice.
///
/// # Errors
/// [`Error::Large`] for files of 2 GiB and more, because external data files are not supported; [`Error::Io`] if writing
/// fails.
pub fn write(graph: &Graph, metadata: &[(String, String)], to: &mut dyn Write) -> Result<()> {
    write_within(graph, metadata, to, MAX_MESSAGE_BYTES)
}

fn write_within(graph: &Graph, metadata: &[(String, String)], to: &mut dyn Write, largest: usize) -> Result<()> {
    let (model, body) = (model(graph, metadata), body(graph));
    let constants: Vec<&Fact> = constants(graph);
    let sizes: Vec<usize> = constants.iter().map(|fact| tensor_len(fact)).collect();
    let graph_bytes = graph_len(&body, &sizes);
    let bytes = model.encoded_len() + field_len(graph_bytes);
    if bytes > largest {
        return Err(Error::Large { graph: graph.name, bytes, largest });
    }
    let mut write = |bytes: &[u8]| to.write_all(bytes).map_err(|error| Error::io("write", graph.name, error));
    write(&model.encode_to_vec())?;
    write(&field_header(GRAPH, graph_bytes))?;
    write(&body.encode_to_vec())?;
    for (fact, size) in constants.into_iter().zip(sizes) {
        write(&field_header(INITIALIZER, size))?;
        write(&tensor(fact).encode_to_vec())?;
        let data = fact.data.as_ref().map(ConstantData::bytes).unwrap_or_default();
        write(&field_header(RAW_DATA, data.len()))?;
        write(&data)?;
    }
    Ok(())
}

/// Size in bytes of the file of a graph without metadata.
pub(crate) fn len(graph: &Graph) -> usize {
    let sizes: Vec<usize> = constants(graph).into_iter().map(tensor_len).collect();
    model(graph, &[]).encoded_len() + field_len(graph_len(&body(graph), &sizes))
}

/// Size in bytes of a `GraphProto` whose initializers have `sizes`.
fn graph_len(body: &GraphProto, sizes: &[usize]) -> usize {
    body.encoded_len() + sizes.iter().map(|&size| field_len(size)).sum::<usize>()
}

/// Field number of `graph` in `ModelProto`.
const GRAPH: u32 = 7;
/// Field number of `initializer` in `GraphProto`.
const INITIALIZER: u32 = 5;
/// Field number of `raw_data` in `TensorProto`.
const RAW_DATA: u32 = 9;

/// Key and length of the field `number` with `size` bytes.
fn field_header(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(size as u64, &mut bytes);
    bytes
}

/// Size of a field with `size` bytes of content, including key and length.
fn field_len(size: usize) -> usize {
    // Keys of field numbers below 16 take one byte.
    1 + encoded_len_varint(size as u64) + size
}

fn tensor_len(fact: &Fact) -> usize {
    tensor(fact).encoded_len() + field_len(fact.data.as_ref().map_or(0, ConstantData::len))
}

/// The model without its graph.
fn model(graph: &Graph, metadata: &[(String, String)]) -> ModelProto {
    let opset = i64::from(graph.target.opset.number());
    let mut opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
    if graph.nodes().iter().any(|node| node.operator.domain == Domain::Microsoft) {
        opset_import.push(OperatorSetIdProto { domain: Domain::Microsoft.name().to_owned(), version: 1 });
    }
    ModelProto {
        ir_version: graph.target.opset.ir_version(),
        opset_import,
        producer_name: "laps-zoo".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        metadata_props: metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        ..ModelProto::default()
    }
}

/// The constants that nodes use.
pub(crate) fn constants(graph: &Graph) -> Vec<&Fact> {
    let used: BTreeSet<ValueId> = graph.nodes().iter().flat_map(|node| node.inputs.iter().flatten().copied()).collect();
    used.iter().map(|&id| graph.fact(id)).filter(|fact| fact.data.is_some()).collect()
}

/// The graph without its initializers.
fn body(graph: &Graph) -> GraphProto {
    let made = graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten().copied());
    let inner = made.filter(|id| !graph.outputs.contains(id)).map(|id| graph.fact(id));
    GraphProto {
        name: graph.name.to_owned(),
        node: graph.nodes().iter().map(|node| operation(graph, node)).collect(),
        input: graph.inputs().iter().map(value).collect(),
        output: graph.outputs().iter().map(value).collect(),
        value_info: inner
            .map(|fact| value(&ValueInfo { name: fact.name.clone(), element: fact.element, shape: fact.shape.clone() }))
            .collect(),
        ..GraphProto::default()
    }
}

fn operation(graph: &Graph, node: &Node) -> NodeProto {
    let names = |ids: &[Option<ValueId>]| {
        ids.iter().map(|id| id.map_or_else(String::new, |id| graph.fact(id).name.clone())).collect()
    };
    NodeProto {
        name: node.output().map(|id| graph.fact(id).name.clone()).unwrap_or_default(),
        op_type: node.operator.name.to_owned(),
        domain: node.operator.domain.name().to_owned(),
        input: names(&node.inputs),
        output: names(&node.outputs),
        attribute: node.operator.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        ..NodeProto::default()
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let kind = match value {
        Attribute::Int(value) => {
            attribute.i = *value;
            AttributeType::Int
        }
        Attribute::Float(value) => {
            attribute.f = *value;
            AttributeType::Float
        }
        Attribute::Ints(values) => {
            attribute.ints.clone_from(values);
            AttributeType::Ints
        }
    };
    attribute.r#type = kind as i32;
    attribute
}

/// The tensor without its data.
fn tensor(fact: &Fact) -> TensorProto {
    TensorProto {
        name: fact.name.clone(),
        dims: fact.shape.iter().map(|size| size.smallest() as i64).collect(),
        data_type: fact.element.onnx() as i32,
        ..TensorProto::default()
    }
}

fn value(port: &ValueInfo) -> ValueInfoProto {
    let dim = port.shape.iter().map(|size| Dimension {
        value: Some(match size.fixed() {
            Ok(number) => dimension::Value::DimValue(number as i64),
            Err(_) => dimension::Value::DimParam(size.to_string()),
        }),
        ..Dimension::default()
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Tensor { elem_type: port.element.onnx() as i32, shape };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: port.name.clone(), r#type: Some(kind), ..ValueInfoProto::default() }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{Error, write, write_within};
    use crate::{
        graph::{Graph, Target},
        protobuf::ModelProto,
    };

    /// A test cannot reach the limit of protobuf, so it sets a lower one.
    #[test]
    fn too_large_graph_is_an_error_with_its_size() {
        let mut graph = Graph::new("text", Target::default());
        let numbers: Vec<i64> = (0..1000).collect();
        let whole = graph.i64_vector("numbers", &numbers);
        let operator = crate::graph::Operator::new("Abs");
        graph.apply(operator, &[Some(whole)], (crate::graph::ElementType::I64, vec![1000.into()]), "absolute");
        let mut bytes = Vec::new();
        write(&graph, &[("key".to_owned(), "value".to_owned())], &mut bytes).unwrap();
        // The hand-written framing equals what the protobuf library reads and writes.
        let read = ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(read.encoded_len(), bytes.len());
        let constants = &read.graph.unwrap().initializer;
        assert_eq!((constants.len(), constants[0].dims.as_slice()), (1, &[1000][..]));
        assert_eq!(constants[0].raw_data[8..16], 1i64.to_le_bytes());
        assert_eq!(read.metadata_props[0].value, "value");

        let bytes = super::len(&graph);
        write_within(&graph, &[], &mut Vec::new(), bytes).unwrap();
        let mut written = Vec::new();
        let error = write_within(&graph, &[], &mut written, bytes - 1).unwrap_err();
        assert!(matches!(error, Error::Large { graph: "text", bytes: own, .. } if own == bytes), "{error}");
        let found = format!("expected: at most {} bytes\n  found: {bytes}", bytes - 1);
        assert!(error.to_string().ends_with(&found), "{error}");
        assert!(error.hint().is_some() && written.is_empty());
    }
}
