//! A graph as an ONNX file.

use std::{collections::BTreeSet, io::Write};

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use crate::{
    Error, Result,
    graph::{Attribute, Content, Domain, Fact, Graph, Id, Node, Port},
    protobuf::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto::Dimension,
        tensor_shape_proto::dimension, type_proto,
    },
};

/// Largest message that readers of protobuf take.
const LARGEST: usize = i32::MAX as usize;

/// The file of a graph; `metadata` is written into it.
///
/// # Errors
/// As [`write()`].
pub fn encode(graph: &Graph, metadata: &[(String, String)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(graph, metadata, &mut bytes)?;
    Ok(bytes)
}

/// Writes the file of a graph, one constant at a time: the largest of them is all that is held twice.
///
/// # Errors
/// [`Error::Large`] from 2 GiB on, for weights in files of their own are not written; [`Error::Io`] where `to` takes no
/// more.
pub fn write(graph: &Graph, metadata: &[(String, String)], to: &mut dyn Write) -> Result<()> {
    write_within(graph, metadata, to, LARGEST)
}

fn write_within(graph: &Graph, metadata: &[(String, String)], to: &mut dyn Write, largest: usize) -> Result<()> {
    let (model, body) = (model(graph, metadata), body(graph));
    let constants: Vec<&Fact> = constants(graph);
    let sizes: Vec<usize> = constants.iter().map(|fact| tensor_len(fact)).collect();
    let inside = graph_len(&body, &sizes);
    let bytes = model.encoded_len() + field_len(inside);
    if bytes > largest {
        return Err(Error::Large { graph: graph.name, bytes, largest });
    }
    let mut put = |bytes: &[u8]| to.write_all(bytes).map_err(|error| Error::io("write", graph.name, error));
    put(&model.encode_to_vec())?;
    put(&begin(GRAPH, inside))?;
    put(&body.encode_to_vec())?;
    for (fact, size) in constants.into_iter().zip(sizes) {
        put(&begin(INITIALIZER, size))?;
        put(&tensor(fact).encode_to_vec())?;
        let content = fact.content.as_ref().map(Content::bytes).unwrap_or_default();
        put(&begin(RAW_DATA, content.len()))?;
        put(&content)?;
    }
    Ok(())
}

/// Bytes of the file of a graph without metadata.
pub(crate) fn len(graph: &Graph) -> usize {
    let sizes: Vec<usize> = constants(graph).into_iter().map(tensor_len).collect();
    model(graph, &[]).encoded_len() + field_len(graph_len(&body(graph), &sizes))
}

/// The size of a graph whose constants have `sizes`.
fn graph_len(body: &GraphProto, sizes: &[usize]) -> usize {
    body.encoded_len() + sizes.iter().map(|&size| field_len(size)).sum::<usize>()
}

/// Number of the field `graph` in a model.
const GRAPH: u32 = 7;
/// Of `initializer` in a graph.
const INITIALIZER: u32 = 5;
/// Of `raw_data` in a tensor.
const RAW_DATA: u32 = 9;

/// What stands in front of `size` bytes of the field `number`.
fn begin(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(size as u64, &mut bytes);
    bytes
}

/// The size of a field of `size` bytes, all in all.
fn field_len(size: usize) -> usize {
    // The key of a field below 16 is one byte.
    1 + encoded_len_varint(size as u64) + size
}

fn tensor_len(fact: &Fact) -> usize {
    tensor(fact).encoded_len() + field_len(fact.content.as_ref().map_or(0, Content::len))
}

/// Everything but the graph.
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

/// The constants that a node takes.
pub(crate) fn constants(graph: &Graph) -> Vec<&Fact> {
    let used: BTreeSet<Id> = graph.nodes().iter().flat_map(|node| node.inputs.iter().flatten().copied()).collect();
    used.iter().map(|&id| graph.fact(id)).filter(|fact| fact.content.is_some()).collect()
}

/// Everything but the constants.
fn body(graph: &Graph) -> GraphProto {
    let made = graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten().copied());
    let inner = made.filter(|id| !graph.outputs.contains(id)).map(|id| graph.fact(id));
    GraphProto {
        name: graph.name.to_owned(),
        node: graph.nodes().iter().map(|node| operation(graph, node)).collect(),
        input: graph.inputs().iter().map(value).collect(),
        output: graph.outputs().iter().map(value).collect(),
        value_info: inner
            .map(|fact| value(&Port { name: fact.name.clone(), element: fact.element, shape: fact.shape.clone() }))
            .collect(),
        ..GraphProto::default()
    }
}

fn operation(graph: &Graph, node: &Node) -> NodeProto {
    let names = |ids: &[Option<Id>]| {
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

/// Everything but its numbers.
fn tensor(fact: &Fact) -> TensorProto {
    TensorProto {
        name: fact.name.clone(),
        dims: fact.shape.iter().map(|size| size.parts().0 as i64).collect(),
        data_type: fact.element.onnx() as i32,
        ..TensorProto::default()
    }
}

fn value(port: &Port) -> ValueInfoProto {
    let dim = port.shape.iter().map(|size| Dimension {
        value: Some(match size.parts() {
            (number, None) => dimension::Value::DimValue(number as i64),
            (_, Some(_)) => dimension::Value::DimParam(size.to_string()),
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

    use super::{Error, encode, write_within};
    use crate::{
        graph::{Graph, Target},
        protobuf::ModelProto,
    };

    /// Protobuf's own limit can not be reached in a test; the same code is asked for a lower one.
    #[test]
    fn a_graph_that_no_file_holds_is_an_error_with_its_size() {
        let mut graph = Graph::new("text", Target::default());
        let numbers: Vec<i64> = (0..1000).collect();
        let whole = graph.whole("numbers", &numbers);
        let operator = crate::graph::Operator::new("Abs");
        graph.apply(operator, &[Some(whole)], (crate::graph::Element::I64, vec![1000.into()]), "absolute");
        let bytes = encode(&graph, &[("key".to_owned(), "value".to_owned())]).unwrap();
        // What is put together by hand is what the format's own reader and writer make of it.
        let read = ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(read.encoded_len(), bytes.len());
        let constants = &read.graph.unwrap().initializer;
        assert_eq!((constants.len(), constants[0].dims.as_slice()), (1, &[1000][..]));
        assert_eq!(constants[0].raw_data[8..16], 1i64.to_le_bytes());
        assert_eq!(read.metadata_props[0].value, "value");

        let bytes = encode(&graph, &[]).unwrap().len();
        write_within(&graph, &[], &mut Vec::new(), bytes).unwrap();
        let mut written = Vec::new();
        let error = write_within(&graph, &[], &mut written, bytes - 1).unwrap_err();
        assert!(matches!(error, Error::Large { graph: "text", bytes: own, .. } if own == bytes), "{error}");
        let found = format!("expected: at most {} bytes\n  found: {bytes}", bytes - 1);
        assert!(error.to_string().ends_with(&found), "{error}");
        assert!(error.hint().is_some() && written.is_empty());
    }
}
