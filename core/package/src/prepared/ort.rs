//! What an `.ort` file says of itself. Field numbers are those of onnxruntime's `ort.fbs`.

use std::collections::{HashMap, HashSet};

use super::flatbuffer::{Table, Vector};
use super::{PreparedError, below};
use crate::onnx::{
    End, GRAPH_ENTRIES_MAX, SIGNATURE_TENSORS_MAX, Signature, axis_name, scales_together,
};
use crate::tensor::{ElementType, TENSOR_RANK_MAX, TensorSpec};

/// Reads what an `.ort` file takes and gives. Integer convolutions are not looked for: only onnxruntime runs
/// such files, and it computes them rightly.
///
/// # Errors
///
/// Bytes that are no `.ort` file, inputs or outputs that are no tensors of a supported type, numbers above the
/// limits.
pub fn ort_signature(bytes: &[u8]) -> Result<Signature, PreparedError> {
    if bytes.get(4..8) != Some(b"ORTM") {
        return Err(PreparedError::Not {
            a: "an .ort",
            how: "onnxruntime's convert_onnx_models_to_ort makes one from ONNX",
        });
    }
    // InferenceSession: 1 model; Model: 7 graph; Graph: 0 initializers, 1 node_args, 2 nodes, 5 inputs, 6 outputs
    let model = Table::root(bytes)?.table(1, GRAPH)?;
    let graph = match model {
        Some(model) => model.table(7, GRAPH)?,
        None => None,
    };
    let graph = graph.ok_or(PreparedError::Malformed { what: GRAPH })?;
    let list = |field| graph.vector(field, 4, GRAPH);
    let (nodes, scales_together) = match list(2)? {
        Some(nodes) => (nodes.length(), any_scales_together(nodes)?),
        None => (0, false),
    };
    let weights = match list(0)? {
        Some(weights) => names(weights)?,
        None => HashSet::new(),
    };
    let infos = list(1)?.ok_or(PreparedError::Malformed { what: GRAPH })?;
    // Old files list every initializer among the inputs.
    let wanted = |field| match list(field)? {
        Some(names) => supplied(names, &weights),
        None => Ok(Vec::new()),
    };
    let (inputs, outputs) = (wanted(5)?, wanted(6)?);
    if outputs.is_empty() {
        return Err(PreparedError::Malformed {
            what: "its outputs",
        });
    }
    let (inputs, mut first_axes): (_, Vec<_>) = specs(infos, &inputs)?.into_iter().unzip();
    let (outputs, of_outputs): (_, Vec<_>) = specs(infos, &outputs)?.into_iter().unzip();
    first_axes.extend(of_outputs);
    Ok(Signature {
        inputs,
        outputs,
        opset: 0,
        nodes,
        padded_integer_convolutions: Vec::new(),
        first_axes,
        scales_together,
    })
}

/// `Node { 5 op_type, 10 attributes }`. Graphs inside nodes are not looked at: what has any is taken for such.
fn any_scales_together(nodes: Vector<'_>) -> Result<bool, PreparedError> {
    below(nodes.length(), "nodes", GRAPH_ENTRIES_MAX)?;
    let mut attributes_seen = 0;
    for node in nodes.tables(GRAPH) {
        let node = node?;
        if node.text(5, GRAPH)?.is_some_and(scales_together) {
            return Ok(true);
        }
        let Some(attributes) = node.vector(10, 4, GRAPH)? else {
            continue;
        };
        // References may share them.
        attributes_seen += attributes.length();
        below(attributes_seen, "attributes", ATTRIBUTES_MAX)?;
        for attribute in attributes.tables(GRAPH) {
            if holds_graph(attribute?)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// `Attribute { 2 type }`.
fn holds_graph(attribute: Table<'_>) -> Result<bool, PreparedError> {
    let kind = attribute.number(2, GRAPH)?.map(i32::from_le_bytes);
    Ok(matches!(kind, Some(A_GRAPH | GRAPHS)))
}

/// Field 0 of each: `Tensor { 0 name }`.
fn names<'a>(tables: Vector<'a>) -> Result<HashSet<&'a str>, PreparedError> {
    below(tables.length(), "initializers", GRAPH_ENTRIES_MAX)?;
    let name = |table: Result<Table<'a>, _>| Ok(table?.text(0, GRAPH)?.unwrap_or_default());
    tables.tables(GRAPH).map(name).collect()
}

/// The names that are no weight's.
fn supplied<'a>(names: Vector<'a>, weights: &HashSet<&str>) -> Result<Vec<&'a str>, PreparedError> {
    // References may share a text, so that a small file could name long ones very often.
    below(
        names.length(),
        "inputs or outputs",
        weights.len() + SIGNATURE_TENSORS_MAX + 1,
    )?;
    let mut supplied = Vec::new();
    for name in names.texts(END) {
        let name = name?;
        if !weights.contains(name) {
            below(supplied.len(), "inputs or outputs", SIGNATURE_TENSORS_MAX)?;
            supplied.push(name);
        }
    }
    Ok(supplied)
}

fn specs(infos: Vector<'_>, names: &[&str]) -> Result<Vec<End>, PreparedError> {
    below(infos.length(), "values", GRAPH_ENTRIES_MAX)?;
    let wanted: HashSet<&str> = names.iter().copied().collect();
    let mut found = HashMap::new();
    for info in infos.tables(END) {
        let info = info?;
        let name = info.text(0, END)?.unwrap_or_default();
        if wanted.contains(name) {
            found.insert(name, info);
        }
    }
    names
        .iter()
        .map(|name| match found.get(name) {
            Some(info) => spec(name, *info),
            None => Err(PreparedError::Malformed { what: END }),
        })
        .collect()
}

/// `ValueInfo { 2 type }`, `TypeInfo { 1 kind, 2 value }`, `TensorTypeAndShape { 0 elem_type, 1 shape }`,
/// `Shape { 0 dim }`, `Dimension { 0 value }`, `DimensionValue { 0 kind, 1 length, 2 name }`.
fn spec(name: &str, info: Table<'_>) -> Result<End, PreparedError> {
    let shown = || name.chars().take(64).collect::<String>();
    let unsaid = |what| PreparedError::Unsaid {
        name: shown(),
        what,
    };
    let kind = info.table(2, END)?.ok_or_else(|| unsaid("type"))?;
    if kind.number::<1>(1, END)? != Some([TENSOR_TYPE]) {
        return Err(PreparedError::Element {
            name: shown(),
            code: 0,
        });
    }
    let tensor = kind.table(2, END)?.ok_or_else(|| unsaid("type"))?;
    let code = i32::from_le_bytes(tensor.number(0, END)?.unwrap_or_default());
    let element = u64::try_from(code).ok().and_then(ElementType::from_onnx);
    let element = element.ok_or_else(|| PreparedError::Element {
        name: shown(),
        code,
    })?;
    let shape = tensor.table(1, END)?.ok_or_else(|| unsaid("shape"))?;
    let dimensions = shape.vector(0, 4, END)?;
    if dimensions.is_some_and(|dimensions| dimensions.length() > TENSOR_RANK_MAX) {
        return Err(PreparedError::TooMany {
            what: "dimensions",
            limit: TENSOR_RANK_MAX,
        });
    }
    let axes = dimensions
        .into_iter()
        .flat_map(|dimensions| dimensions.tables(END))
        .map(|dimension| axis(dimension?))
        .collect::<Result<Vec<_>, PreparedError>>()?;
    let first = axes.first().and_then(|(_, name)| axis_name((*name)?));
    let shape = axes.into_iter().map(|(length, _)| length).collect();
    Ok((TensorSpec::new(name, element, shape)?, first))
}

/// A length, or a name.
fn axis(dimension: Table<'_>) -> Result<(Option<u64>, Option<&str>), PreparedError> {
    let Some(value) = dimension.table(0, END)? else {
        return Ok((None, None));
    };
    match value.number::<1>(0, END)? {
        Some([KNOWN_LENGTH]) => {
            let length = i64::from_le_bytes(value.number(1, END)?.unwrap_or_default());
            // Some exporters write -1 for a free dimension.
            Ok((u64::try_from(length).ok(), None))
        }
        Some([NAMED]) => Ok((None, value.text(2, END)?)),
        _ => Ok((None, None)),
    }
}

const GRAPH: &str = "its graph";
const END: &str = "an input or output";

/// Most attributes of all nodes together; most nodes have fewer than eight.
const ATTRIBUTES_MAX: usize = 8 * GRAPH_ENTRIES_MAX;
/// `AttributeType`.
const A_GRAPH: i32 = 5;
const GRAPHS: i32 = 10;

/// `TypeInfoValue`.
const TENSOR_TYPE: u8 = 1;
/// `DimensionValueType`.
const KNOWN_LENGTH: u8 = 1;
const NAMED: u8 = 2;
