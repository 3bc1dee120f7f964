//! A graph as an ONNX file.

use std::collections::BTreeSet;

use prost::Message;

use crate::{
    Error, Result,
    graph::{Attribute, Domain, Fact, Graph, Id, Node, Port},
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
/// [`Error::Large`] from 2 GiB on: weights in files of their own are not written.
pub fn encode(graph: &Graph, metadata: &[(String, String)]) -> Result<Vec<u8>> {
    encode_within(graph, metadata, LARGEST)
}

fn encode_within(graph: &Graph, metadata: &[(String, String)], largest: usize) -> Result<Vec<u8>> {
    let model = model(graph, metadata);
    let bytes = model.encoded_len();
    if bytes > largest {
        return Err(Error::Large { graph: graph.name, bytes, largest });
    }
    Ok(model.encode_to_vec())
}

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
        graph: Some(body(graph)),
        metadata_props: metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        ..ModelProto::default()
    }
}

fn body(graph: &Graph) -> GraphProto {
    let used: BTreeSet<Id> = graph.nodes().iter().flat_map(|node| node.inputs.iter().flatten().copied()).collect();
    let constants = used.iter().map(|&id| graph.fact(id)).filter(|fact| fact.content.is_some());
    let made = graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten().copied());
    let inner = made.filter(|id| !graph.outputs.contains(id)).map(|id| graph.fact(id));
    GraphProto {
        name: graph.name.to_owned(),
        node: graph.nodes().iter().map(|node| operation(graph, node)).collect(),
        initializer: constants.map(tensor).collect(),
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

fn tensor(fact: &Fact) -> TensorProto {
    TensorProto {
        name: fact.name.clone(),
        dims: fact.shape.iter().map(|size| size.parts().0 as i64).collect(),
        data_type: fact.element.onnx() as i32,
        raw_data: fact.content.as_ref().map(|content| content.bytes()).unwrap_or_default(),
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
    use super::{Error, encode, encode_within};
    use crate::graph::{Graph, Target};

    /// Protobuf's own limit can not be reached in a test; the same code is asked for a lower one.
    #[test]
    fn a_graph_that_no_file_holds_is_an_error_with_its_size() {
        let graph = Graph::new("text", Target::default());
        let bytes = encode(&graph, &[]).unwrap().len();
        assert_eq!(encode_within(&graph, &[], bytes).unwrap().len(), bytes);
        let error = encode_within(&graph, &[], bytes - 1).unwrap_err();
        assert!(matches!(error, Error::Large { graph: "text", bytes: own, .. } if own == bytes), "{error}");
        let found = format!("expected: at most {} bytes\n  found: {bytes}", bytes - 1);
        assert!(error.to_string().ends_with(&found), "{error}");
        assert!(error.hint().is_some());
    }
}
