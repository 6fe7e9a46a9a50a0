//! What an ONNX file takes and gives, read without an engine.
//!
//! ```text
//! bytes ──▶ Signature::read ──▶ inputs   (graph inputs minus initializers)
//!                               outputs
//!                               padded integer convolutions, by node name
//! ```
//!
//! A model owner's tool fills the manifest from it, and the runtime's engine checks the manifest
//! against it. Both zones may use it because it links no engine.
//!
//! Always true: any bytes end in a [`Signature`] or an [`OnnxError`]; memory is bounded by the
//! number of names (16 bytes each; 60 in a graph of more than [`CHAIN_NODES_MAX`] nodes), depth by
//! [`GRAPH_DEPTH_MAX`]; weights are stepped over, never read. A file that is accepted nests no graphs, no types
//! and no nodes deeper than an engine can follow that calls itself for each level. Field numbers are those of `onnx.proto3` (ONNX IR version 3 to 13).
//!
//! Not here: whether the graph is valid, whether its operators exist, what it computes.
//!
//! On paper: one pass over the message headers; a 178 MB file of 279 nodes touches about 60 KB.

mod error;
mod protobuf;
mod weights;

use std::collections::{HashMap, HashSet};

use crate::tensor::{ElementType, TENSOR_NAME_BYTES_MAX, TensorSpec};
use protobuf::{Fields, Value};

pub use error::OnnxError;
pub use weights::Weights;

/// Most inputs, and most outputs, of a model. Real ones have up to about 100 (cached decoder
/// states).
pub const SIGNATURE_TENSORS_MAX: usize = 512;

/// Most nodes or initializers that are looked at, each. Large exported models have about 50 000.
pub const GRAPH_ENTRIES_MAX: usize = 1 << 20;

/// Deepest nesting of graphs inside graphs (`If`, `Loop`). Exporters write up to 3.
pub const GRAPH_DEPTH_MAX: usize = 16;

/// Most nodes, one fed by the other, in a graph. Engines plan a graph by a call for each, on a thread's stack; the
/// deepest published networks have about 1 500.
pub const CHAIN_NODES_MAX: usize = 4096;

/// Deepest nesting of types inside types (sequences, maps, optional values). Exporters write up to 2.
pub const TYPE_DEPTH_MAX: usize = 8;

/// Inputs, outputs and known trouble of an ONNX model.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Signature {
    /// What the caller supplies, in the graph's order.
    pub inputs: Vec<TensorSpec>,
    /// What the model gives, in the graph's order.
    pub outputs: Vec<TensorSpec>,
    /// Version of the default operator set, 0 when the file names none.
    pub opset: i64,
    /// Nodes, those of nested graphs included.
    pub nodes: usize,
    /// Nodes that convolve integers with padding (`ConvInteger`, `QLinearConv`), which some
    /// engines compute wrongly at the borders. Names, or the first output of a nameless node.
    pub padded_integer_convolutions: Vec<String>,
    /// What the file calls the first axis of each input and then of each output; `None` where it has a length, no name,
    /// or there is none.
    pub first_axes: Vec<Option<String>>,
    /// Whether a node takes one scale from all numbers of a tensor (`DynamicQuantizeLinear` and what is made of it), so that
    /// the rows of one run round each other.
    pub scales_together: bool,
}

impl Signature {
    /// Whether the first axis of every input and output is free and has the same name, so that it may be what counts
    /// requests, and nothing is known that makes one row change another. An output whose rows are something else, such as
    /// what was detected, has another name or none.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        let mut axes = self.first_axes.iter();
        let first = axes.next().and_then(Option::as_ref);
        let named = first.is_some() && axes.all(|axis| axis.as_ref() == first);
        named && !self.inputs.is_empty() && !self.scales_together
    }

    /// Reads the signature of the ONNX file `bytes`.
    ///
    /// # Errors
    ///
    /// Bytes that are no ONNX model, weights kept in other files, inputs or outputs that are no
    /// tensors of a supported type with a known rank, numbers above the limits.
    pub fn read(bytes: &[u8]) -> Result<Self, OnnxError> {
        let mut graph = None;
        let mut opset = 0;
        let mut nodes = NodeScan::default();
        for field in Fields::of(bytes) {
            match field? {
                // ModelProto: 7 graph, 8 opset_import, 25 functions
                (7, Value::Bytes(bytes)) if graph.is_none() => graph = Some(bytes),
                (7, _) => return Err(OnnxError::NotOnnx),
                (8, Value::Bytes(bytes)) => opset = default_opset(bytes)?.unwrap_or(opset),
                (25, Value::Bytes(bytes)) => nodes.function(bytes)?,
                _ => {}
            }
        }
        let graph = Graph::read(graph.ok_or(OnnxError::NotOnnx)?)?;
        nodes.graph(&graph, 0)?;
        if graph.outputs.is_empty() {
            return Err(OnnxError::NotOnnx);
        }
        let supplied = graph
            .inputs
            .iter()
            .filter(|info| !graph.initializers.contains(info.name));
        let inputs = supplied.map(ValueInfo::spec);
        let inputs: Vec<End> = inputs.collect::<Result<_, _>>()?;
        let outputs = graph.outputs.iter().map(ValueInfo::spec);
        let outputs: Vec<End> = outputs.collect::<Result<_, _>>()?;
        let (inputs, mut first_axes): (_, Vec<_>) = inputs.into_iter().unzip();
        let (outputs, of_outputs): (_, Vec<_>) = outputs.into_iter().unzip();
        first_axes.extend(of_outputs);
        Ok(Self {
            inputs,
            outputs,
            opset,
            nodes: nodes.seen,
            padded_integer_convolutions: nodes.padded,
            first_axes,
            scales_together: nodes.scales_together,
        })
    }
}

/// `OperatorSetIdProto`: 1 domain, 2 version. The version when the domain is the default one.
fn default_opset(bytes: &[u8]) -> Result<Option<i64>, OnnxError> {
    let (mut default, mut version) = (true, 0);
    for field in Fields::of(bytes) {
        match field? {
            (1, Value::Bytes(domain)) => default = domain.is_empty() || domain == b"ai.onnx",
            (2, Value::Varint(number)) => version = number.cast_signed(),
            _ => {}
        }
    }
    Ok(default.then_some(version))
}

/// `GraphProto`: 1 node, 5 initializer, 11 input, 12 output, 13 value_info.
struct Graph<'a> {
    nodes: Vec<&'a [u8]>,
    initializers: HashSet<&'a str>,
    inputs: Vec<ValueInfo<'a>>,
    outputs: Vec<ValueInfo<'a>>,
}

impl<'a> Graph<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, OnnxError> {
        let mut graph = Self {
            nodes: Vec::new(),
            initializers: HashSet::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(node)) => {
                    below(graph.nodes.len(), "nodes", GRAPH_ENTRIES_MAX)?;
                    graph.nodes.push(node);
                }
                (5, Value::Bytes(tensor)) => {
                    below(graph.initializers.len(), "initializers", GRAPH_ENTRIES_MAX)?;
                    graph.initializers.insert(initializer_name(tensor)?);
                }
                (11, Value::Bytes(info)) => {
                    // Old files list every initializer among the inputs.
                    below(graph.inputs.len(), "inputs", GRAPH_ENTRIES_MAX)?;
                    graph.inputs.push(ValueInfo::read(info)?);
                }
                (12, Value::Bytes(info)) => {
                    below(graph.outputs.len(), "outputs", SIGNATURE_TENSORS_MAX)?;
                    graph.outputs.push(ValueInfo::read(info)?);
                }
                (13, Value::Bytes(info)) => {
                    ValueInfo::read(info)?;
                }
                _ => {}
            }
        }
        let supplied = graph
            .inputs
            .iter()
            .filter(|info| !graph.initializers.contains(info.name));
        match supplied.count() {
            0..=SIGNATURE_TENSORS_MAX => Ok(graph),
            _ => Err(OnnxError::TooMany {
                what: "inputs",
                limit: SIGNATURE_TENSORS_MAX,
            }),
        }
    }
}

/// `TensorProto`: 8 name, 14 data_location (1 = external).
fn initializer_name(bytes: &[u8]) -> Result<&str, OnnxError> {
    let (mut name, mut external) = ("", false);
    for field in Fields::of(bytes) {
        match field? {
            (8, Value::Bytes(bytes)) => name = text(bytes)?,
            (14, Value::Varint(location)) => external = location == 1,
            _ => {}
        }
    }
    if external {
        return Err(OnnxError::ExternalData {
            initializer: name.chars().take(64).collect(),
        });
    }
    Ok(name)
}

/// An input or output, and what its first axis is called.
pub(crate) type End = (TensorSpec, Option<String>);

/// A first axis's name, cut to what a tensor's may have.
pub(crate) fn axis_name(name: &str) -> Option<String> {
    let cut = || name.chars().take(TENSOR_NAME_BYTES_MAX).collect();
    (!name.is_empty()).then(cut)
}

/// Whether an operator takes one scale from all numbers of a tensor; engines make others of it when they convert.
pub(crate) fn scales_together(operator: &str) -> bool {
    operator.starts_with("DynamicQuantize")
}

/// `ValueInfoProto`: 1 name, 2 type.
struct ValueInfo<'a> {
    name: &'a str,
    kind: &'a [u8],
}

impl<'a> ValueInfo<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, OnnxError> {
        let mut info = Self {
            name: "",
            kind: &[],
        };
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => info.name = text(bytes)?,
                (2, Value::Bytes(bytes)) => {
                    check_type(bytes, 0)?;
                    info.kind = bytes;
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// `TypeProto`: 1 tensor_type { 1 elem_type, 2 shape { 1 dim { 1 dim_value, 2 dim_param } } }.
    fn spec(&self) -> Result<End, OnnxError> {
        let name = || self.name.chars().take(64).collect::<String>();
        let mut tensor = None;
        for field in Fields::of(self.kind) {
            if let (1, Value::Bytes(bytes)) = field? {
                tensor = Some(bytes);
            }
        }
        let tensor = tensor.ok_or_else(|| OnnxError::NotTensor { name: name() })?;
        let (mut code, mut shape) = (0, None);
        for field in Fields::of(tensor) {
            match field? {
                (1, Value::Varint(number)) => code = number,
                (2, Value::Bytes(bytes)) => shape = Some(dimensions(bytes)?),
                _ => {}
            }
        }
        let element = ElementType::from_onnx(code)
            .ok_or_else(|| OnnxError::Element { name: name(), code })?;
        let (shape, axis) = shape.ok_or_else(|| OnnxError::NoShape { name: name() })?;
        Ok((TensorSpec::new(self.name, element, shape)?, axis))
    }
}

/// `TypeProto`: 4 sequence_type { 1 elem_type }, 5 map_type { 2 value_type }, 9 optional_type { 1 elem_type }. Refuses
/// types that nest too deep; the same bytes are looked at once for each level.
fn check_type(bytes: &[u8], depth: usize) -> Result<(), OnnxError> {
    below(depth, "levels of nested types", TYPE_DEPTH_MAX)?;
    for field in Fields::of(bytes) {
        let (inner, within) = match field? {
            (4 | 9, Value::Bytes(inner)) => (inner, 1),
            (5, Value::Bytes(inner)) => (inner, 2),
            _ => continue,
        };
        for field in Fields::of(inner) {
            match field? {
                (number, Value::Bytes(element)) if number == within => {
                    check_type(element, depth + 1)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The lengths, and the name of the first axis.
fn dimensions(shape: &[u8]) -> Result<(Vec<Option<u64>>, Option<String>), OnnxError> {
    let (mut dimensions, mut axis) = (Vec::new(), None);
    for field in Fields::of(shape) {
        if let (1, Value::Bytes(dimension)) = field? {
            below(
                dimensions.len(),
                "dimensions",
                crate::tensor::TENSOR_RANK_MAX,
            )?;
            let (mut length, mut name) = (None, None);
            for field in Fields::of(dimension) {
                match field? {
                    // Some exporters write -1 for a free dimension.
                    (1, Value::Varint(value)) => length = u64::try_from(value.cast_signed()).ok(),
                    (2, Value::Bytes(bytes)) => name = std::str::from_utf8(bytes).ok(),
                    _ => {}
                }
            }
            if dimensions.is_empty() && length.is_none() {
                axis = name.and_then(axis_name);
            }
            dimensions.push(length);
        }
    }
    Ok((dimensions, axis))
}

/// Walks nodes of a model and of the graphs inside its nodes.
#[derive(Default)]
struct NodeScan {
    seen: usize,
    padded: Vec<String>,
    scales_together: bool,
}

impl NodeScan {
    fn graph(&mut self, graph: &Graph<'_>, depth: usize) -> Result<(), OnnxError> {
        below(depth, "levels of nested graphs", GRAPH_DEPTH_MAX)?;
        for node in &graph.nodes {
            self.node(node, depth)?;
        }
        match graph.nodes.len() {
            0..=CHAIN_NODES_MAX => Ok(()),
            _ => check_chains(&graph.nodes),
        }
    }

    /// `FunctionProto`: 7 node.
    fn function(&mut self, bytes: &[u8]) -> Result<(), OnnxError> {
        for field in Fields::of(bytes) {
            if let (7, Value::Bytes(node)) = field? {
                self.node(node, 0)?;
            }
        }
        Ok(())
    }

    /// `NodeProto`: 2 output, 3 name, 4 op_type, 5 attribute.
    fn node(&mut self, bytes: &[u8], depth: usize) -> Result<(), OnnxError> {
        below(self.seen, "nodes", GRAPH_ENTRIES_MAX)?;
        self.seen += 1;
        let (mut name, mut output, mut operator) = ("", "", "");
        let mut padded = false;
        for field in Fields::of(bytes) {
            match field? {
                (2, Value::Bytes(bytes)) if output.is_empty() => output = text(bytes)?,
                (3, Value::Bytes(bytes)) => name = text(bytes)?,
                (4, Value::Bytes(bytes)) => operator = text(bytes)?,
                (5, Value::Bytes(bytes)) => padded |= self.attribute(bytes, depth)?,
                _ => {}
            }
        }
        self.scales_together |= scales_together(operator);
        if padded && matches!(operator, "ConvInteger" | "QLinearConv") {
            let name = if name.is_empty() { output } else { name };
            self.padded.push(name.chars().take(64).collect());
        }
        Ok(())
    }

    /// `AttributeProto`: 1 name, 4 s, 6 g, 8 ints, 11 graphs. Whether it asks for padding.
    fn attribute(&mut self, bytes: &[u8], depth: usize) -> Result<bool, OnnxError> {
        let (mut name, mut string, mut nonzero) = ("", &b""[..], false);
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => name = text(bytes)?,
                (4, Value::Bytes(bytes)) => string = bytes,
                (6 | 11, Value::Bytes(bytes)) => self.graph(&Graph::read(bytes)?, depth + 1)?,
                (8, Value::Varint(int)) => nonzero |= int != 0,
                // Packed: a sum of varints is zero only when every byte is zero.
                (8, Value::Bytes(bytes)) => nonzero |= bytes.iter().any(|byte| byte & 0x7f != 0),
                _ => {}
            }
        }
        Ok(match name {
            "pads" => nonzero,
            "auto_pad" => string == b"SAME_UPPER" || string == b"SAME_LOWER",
            _ => false,
        })
    }
}

/// Refuses nodes that form a longer chain than [`CHAIN_NODES_MAX`], those that are fed by later ones, whose chains one
/// pass cannot follow, and those with graphs inside, which may be fed by any name in them.
fn check_chains(nodes: &[&[u8]]) -> Result<(), OnnxError> {
    let mut chains = Chains::default();
    for node in nodes {
        // NodeProto: 1 input, 2 output, 5 attribute { 6 g, 11 graphs }
        let mut length = 0;
        for field in Fields::of(node) {
            match field? {
                (1, Value::Bytes(name)) => length = length.max(chains.fed_by(text(name)?)),
                (5, Value::Bytes(attribute)) if has_graph(attribute)? => {
                    return Err(OnnxError::TooMany {
                        what: "nodes in a graph with branches or loops",
                        limit: CHAIN_NODES_MAX,
                    });
                }
                _ => {}
            }
        }
        below(length, "nodes in a row", CHAIN_NODES_MAX)?;
        for field in Fields::of(node) {
            if let (2, Value::Bytes(name)) = field? {
                chains.gives(text(name)?, length + 1)?;
            }
        }
    }
    Ok(())
}

fn has_graph(attribute: &[u8]) -> Result<bool, OnnxError> {
    for field in Fields::of(attribute) {
        if let (6 | 11, Value::Bytes(_)) = field? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many nodes in a row lead to each value; `None` for values that no node gave before they were asked for.
#[derive(Default)]
struct Chains<'a>(HashMap<&'a str, Option<usize>>);

impl<'a> Chains<'a> {
    fn fed_by(&mut self, name: &'a str) -> usize {
        match name {
            // What a node could take and does not.
            "" => 0,
            _ => self.0.entry(name).or_default().unwrap_or_default(),
        }
    }

    fn gives(&mut self, name: &'a str, length: usize) -> Result<(), OnnxError> {
        if name.is_empty() {
            return Ok(());
        }
        let shown = || name.chars().take(64).collect();
        match self.0.insert(name, Some(length)) {
            None => Ok(()),
            Some(None) => Err(OnnxError::Order { name: shown() }),
            // An engine may take either for its source.
            Some(Some(_)) => Err(OnnxError::Twice { name: shown() }),
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, OnnxError> {
    std::str::from_utf8(bytes).map_err(|error| OnnxError::Malformed {
        offset: error.valid_up_to(),
    })
}

fn below(have: usize, what: &'static str, limit: usize) -> Result<(), OnnxError> {
    if have < limit {
        return Ok(());
    }
    Err(OnnxError::TooMany { what, limit })
}
