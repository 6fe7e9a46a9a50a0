//! What a `.rten` file says of itself. Field numbers are those of `schema.fbs` of rten-model-file 0.27.
//!
//! ```text
//! "RTEN" ‖ version u32 = 2 ‖ offset of the graph u64 ‖ its length u64 ‖ offset of the weights u64 ‖ … graph … weights
//! ```

use super::flatbuffer::{Table, Vector};
use super::{PreparedError, below};
use crate::onnx::{
    CHAIN_NODES_MAX, End, GRAPH_DEPTH_MAX, GRAPH_ENTRIES_MAX, SIGNATURE_TENSORS_MAX, Signature,
    axis_name,
};
use crate::tensor::{ElementType, TENSOR_RANK_MAX, TensorSpec};

/// Inputs, outputs and known trouble of a `.rten` file (format version 2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RtenFile {
    /// What the caller supplies, with the types that rten has: f32, i32, i8, u8. What was i64 or boolean in
    /// the ONNX is i32 here.
    pub inputs: Vec<TensorSpec>,
    /// What the model gives, with the types that rten has.
    pub outputs: Vec<TensorSpec>,
    /// SHA-256 of the ONNX it was made from, hexadecimal, as its converter noted it.
    pub onnx_sha256: Option<String>,
    /// Operators, those of nested graphs included.
    pub nodes: usize,
    /// Operators that convolve integers with padding, which some versions of rten compute wrongly at the
    /// borders. Names of the first ones.
    pub padded_integer_convolutions: Vec<String>,
    /// As [`Signature::first_axes`].
    pub first_axes: Vec<Option<String>>,
    /// As [`Signature::scales_together`].
    pub scales_together: bool,
}

/// What an element is in rten: i64 and boolean are i32 there; `None` for what rten does not compute with.
#[must_use]
pub const fn in_rten(element: ElementType) -> Option<ElementType> {
    match element {
        ElementType::F32 | ElementType::I32 | ElementType::I8 | ElementType::U8 => Some(element),
        ElementType::I64 | ElementType::Bool => Some(ElementType::I32),
        _ => None,
    }
}

impl RtenFile {
    /// Reads what `bytes` say.
    ///
    /// # Errors
    ///
    /// Bytes that are no `.rten` file of version 2, inputs or outputs without type or shape, numbers above the
    /// limits.
    pub fn read(bytes: &[u8]) -> Result<Self, PreparedError> {
        // Model: 0 schema_version, 1 graph, 2 metadata { 0 onnx_hash }
        let description = graph_of(bytes)?;
        let model = Table::root(description)?;
        let graph = model.table(1, GRAPH)?;
        let graph = graph.ok_or(PreparedError::Malformed { what: GRAPH })?;
        let mut scan = Scan {
            // Each node has a reference of its own, so that a file that has its nodes share graphs is none of a
            // converter's: it would have more nodes than its bytes can say.
            seen_max: GRAPH_ENTRIES_MAX.min(description.len() / 4),
            links_max: description.len() / 4,
            ..Scan::default()
        };
        scan.graph(graph, 0)?;
        let metadata = model.table(2, "its metadata")?;
        let onnx_sha256 = match metadata {
            Some(table) => table.text(0, "its metadata")?.map(str::to_owned),
            None => None,
        };
        let (inputs, mut first_axes): (_, Vec<_>) = ends(graph, 1)?.into_iter().unzip();
        let (outputs, of_outputs): (Vec<_>, Vec<_>) = ends(graph, 2)?.into_iter().unzip();
        first_axes.extend(of_outputs);
        if outputs.is_empty() {
            return Err(PreparedError::Malformed {
                what: "its outputs",
            });
        }
        Ok(Self {
            inputs,
            outputs,
            onnx_sha256,
            nodes: scan.operators,
            padded_integer_convolutions: scan.padded,
            first_axes,
            scales_together: scan.scales_together,
        })
    }

    /// What the file says, with the types that rten has.
    #[must_use]
    pub fn as_said(self) -> Signature {
        Signature {
            inputs: self.inputs,
            outputs: self.outputs,
            opset: 0,
            nodes: self.nodes,
            padded_integer_convolutions: self.padded_integer_convolutions,
            first_axes: self.first_axes,
            scales_together: self.scales_together,
        }
    }

    /// What a manifest says of this file when nothing else is known.
    ///
    /// # Errors
    ///
    /// [`PreparedError::Ambiguous`] when an input or output is an integer of 32 bits.
    pub fn signature(self) -> Result<Signature, PreparedError> {
        let mut ends = self.inputs.iter().chain(&self.outputs);
        match ends.find(|end| end.element() == ElementType::I32) {
            Some(end) => Err(PreparedError::Ambiguous {
                name: end.name().to_owned(),
            }),
            None => Ok(self.as_said()),
        }
    }

    /// What a manifest says of this file, given what the ONNX it was made from says.
    ///
    /// # Errors
    ///
    /// The ONNX has other inputs or outputs, or types that rten does not compute with.
    pub fn signature_from(self, onnx: Signature) -> Result<Signature, PreparedError> {
        check(&self.inputs, &onnx.inputs)?;
        check(&self.outputs, &onnx.outputs)?;
        Ok(Signature {
            inputs: onnx.inputs,
            outputs: onnx.outputs,
            first_axes: onnx.first_axes,
            ..self.as_said()
        })
    }
}

/// The part of the file that describes the graph.
fn graph_of(bytes: &[u8]) -> Result<&[u8], PreparedError> {
    let not = PreparedError::Not {
        a: "a .rten",
        how: "rten-convert 0.11 or newer makes one from ONNX",
    };
    let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    if word(0) != Some(*b"RTEN") || word(4) != Some(2_u32.to_le_bytes()) {
        return Err(not);
    }
    let long = |at: usize| -> Option<usize> {
        let number = u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?);
        usize::try_from(number).ok()
    };
    let graph = long(8).zip(long(16)).and_then(|(start, length)| {
        let end = start.checked_add(length)?;
        bytes.get(start..end)
    });
    graph.ok_or(PreparedError::Malformed { what: GRAPH })
}

/// The inputs (field 1) or outputs (field 2) of a graph; the numbers in them are places in its list of nodes.
fn ends(graph: Table<'_>, field: usize) -> Result<Vec<End>, PreparedError> {
    const WHAT: &str = "its inputs and outputs";
    let Some(places) = graph.vector(field, 4, WHAT)? else {
        return Ok(Vec::new());
    };
    if places.length() > SIGNATURE_TENSORS_MAX {
        return Err(PreparedError::TooMany {
            what: "inputs or outputs",
            limit: SIGNATURE_TENSORS_MAX,
        });
    }
    let nodes = graph.vector(0, 4, WHAT)?;
    let nodes = nodes.ok_or(PreparedError::Malformed { what: WHAT })?;
    places
        .words()
        .map(|place| end(nodes.table_at(place as usize, WHAT)?))
        .collect()
}

/// `Node { 0 name, 1 kind, 2 data }`, `ValueNode { 0 shape, 1 dtype }`, `Dim { 0 value, 1 name }`.
fn end(node: Table<'_>) -> Result<End, PreparedError> {
    const WHAT: &str = "an input or output";
    let malformed = PreparedError::Malformed { what: WHAT };
    let name = node.text(0, WHAT)?.ok_or(malformed.clone())?;
    let shown = || name.chars().take(64).collect::<String>();
    if node.number::<1>(1, WHAT)? != Some([VALUE_NODE]) {
        return Err(malformed);
    }
    let value = node.table(2, WHAT)?.ok_or(malformed)?;
    let element = match value.number::<1>(1, WHAT)? {
        Some([0]) => ElementType::I32,
        Some([1]) => ElementType::F32,
        Some([2]) => ElementType::I8,
        Some([3]) => ElementType::U8,
        Some([code]) => {
            return Err(PreparedError::Element {
                name: shown(),
                code: code.into(),
            });
        }
        None => {
            return Err(PreparedError::Unsaid {
                name: shown(),
                what: "type",
            });
        }
    };
    let unsaid = || PreparedError::Unsaid {
        name: shown(),
        what: "shape",
    };
    let dimensions = value.vector(0, 4, WHAT)?.ok_or_else(unsaid)?;
    if dimensions.length() > TENSOR_RANK_MAX {
        return Err(PreparedError::TooMany {
            what: "dimensions",
            limit: TENSOR_RANK_MAX,
        });
    }
    let axes = dimensions.tables(WHAT).map(|dimension| axis(dimension?));
    let axes = axes.collect::<Result<Vec<_>, PreparedError>>()?;
    let first = axes.first().and_then(|(_, named)| axis_name((*named)?));
    let shape = axes.into_iter().map(|(length, _)| length).collect();
    Ok((TensorSpec::new(name, element, shape)?, first))
}

/// A length, or a name.
fn axis(dimension: Table<'_>) -> Result<(Option<u64>, Option<&str>), PreparedError> {
    const WHAT: &str = "an input or output";
    let named = dimension.text(1, WHAT)?;
    let length = u32::from_le_bytes(dimension.number::<4>(0, WHAT)?.unwrap_or_default());
    // The converter writes 0 for a free dimension that has no name.
    let length = (named.is_none() && length > 0).then_some(u64::from(length));
    Ok((length, named))
}

/// Checks that a file's ends are the given ones, in any order, in the types of rten.
fn check(own: &[TensorSpec], given: &[TensorSpec]) -> Result<(), PreparedError> {
    for spec in given {
        let name = || spec.name().chars().take(64).collect::<String>();
        let element = in_rten(spec.element()).ok_or_else(|| PreparedError::NotInRten {
            name: name(),
            element: spec.element(),
        })?;
        let found = own.iter().any(|own| {
            own.name() == spec.name()
                && own.element() == element
                && own.shape().len() == spec.shape().len()
        });
        if !found {
            return Err(PreparedError::Differs { name: name() });
        }
    }
    match own
        .iter()
        .find(|own| !given.iter().any(|spec| spec.name() == own.name()))
    {
        Some(own) => Err(PreparedError::Differs {
            name: own.name().chars().take(64).collect(),
        }),
        None => Ok(()),
    }
}

/// Walks the operators of a graph and of the graphs inside them.
#[derive(Default)]
struct Scan {
    seen: usize,
    seen_max: usize,
    operators: usize,
    /// Places of inputs and outputs that were read, which nodes could share likewise.
    links: usize,
    links_max: usize,
    padded: Vec<String>,
    scales_together: bool,
}

impl Scan {
    /// `Graph { 0 nodes }`.
    fn graph(&mut self, graph: Table<'_>, depth: usize) -> Result<(), PreparedError> {
        below(depth, "levels of nested graphs", GRAPH_DEPTH_MAX)?;
        let Some(nodes) = graph.vector(0, 4, NODE)? else {
            return Ok(());
        };
        for node in nodes.tables(NODE) {
            below(self.seen, "nodes", self.seen_max)?;
            self.seen += 1;
            let node = node?;
            if let Some(operator) = operator_of(node)? {
                self.operator(node, operator, depth)?;
            }
        }
        match nodes.length() {
            0..=CHAIN_NODES_MAX => Ok(()),
            _ => self.check_chains(nodes),
        }
    }

    /// Refuses what [`CHAIN_NODES_MAX`] refuses in an ONNX: too many operators in a row, operators that are fed
    /// by later ones, graphs inside the operators of a large graph.
    fn check_chains(&mut self, nodes: Vector<'_>) -> Result<(), PreparedError> {
        // For each node, how many operators in a row lead to it. Small ones first, so that 32 bits do.
        let mut chains = vec![Chain::Unasked; nodes.length()];
        for node in nodes.tables(NODE) {
            let Some(operator) = operator_of(node?)? else {
                continue;
            };
            if graphs_in(operator)?.0.is_empty() {
                self.check_chain(operator, &mut chains)?;
            } else {
                return Err(PreparedError::TooMany {
                    what: "values and operators in a graph with branches or loops",
                    limit: CHAIN_NODES_MAX,
                });
            }
        }
        Ok(())
    }

    /// `OperatorNode { 3 inputs, 4 outputs }`: places in the graph's list of nodes, -1 for none.
    fn check_chain(
        &mut self,
        operator: Table<'_>,
        chains: &mut [Chain],
    ) -> Result<(), PreparedError> {
        let mut length = 0;
        let mut places = |field| {
            let places = operator.vector(field, 4, NODE)?;
            self.links += places.map_or(0, Vector::length);
            below(self.links, "inputs and outputs of nodes", self.links_max)?;
            Ok::<_, PreparedError>(places.into_iter().flat_map(Vector::words))
        };
        for place in places(3)? {
            match chains.get_mut(place as usize) {
                Some(Chain::Of(fed)) => length = length.max(*fed),
                Some(unasked) => *unasked = Chain::Asked,
                None => {}
            }
        }
        below(length as usize, "operators in a row", CHAIN_NODES_MAX)?;
        for place in places(4)? {
            match chains.get_mut(place as usize) {
                Some(Chain::Asked) => {
                    return Err(PreparedError::Malformed {
                        what: "an operator that takes what a later one gives",
                    });
                }
                // An engine may take either for its source.
                Some(Chain::Of(_)) => {
                    return Err(PreparedError::Malformed {
                        what: "a value that two operators give",
                    });
                }
                Some(chain) => *chain = Chain::Of(length + 1),
                None => {}
            }
        }
        Ok(())
    }

    /// `OperatorNode { 0 type, 1 kind of attributes, 2 attributes }`.
    fn operator(
        &mut self,
        node: Table<'_>,
        operator: Table<'_>,
        depth: usize,
    ) -> Result<(), PreparedError> {
        self.operators += 1;
        let kind = operator.number::<1>(0, NODE)?.unwrap_or_default();
        self.scales_together |= kind == [DYNAMIC_QUANTIZE_LINEAR];
        let attributes = operator.table(2, NODE)?;
        if kind == [CONV_INTEGER] && pads(attributes)? && self.padded.len() < PADDED_NAMED_MAX {
            let name = node.text(0, NODE)?.unwrap_or_default();
            self.padded.push(name.chars().take(64).collect());
        }
        let (inner, attributes) = graphs_in(operator)?;
        for index in inner {
            let graph = match attributes {
                Some(attributes) => attributes.table(*index, GRAPH)?,
                None => None,
            };
            if let Some(graph) = graph {
                self.graph(graph, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// How many operators in a row lead to a value.
#[derive(Clone, Copy)]
enum Chain {
    /// No operator took or gave it yet.
    Unasked,
    /// An operator took it.
    Asked,
    Of(u32),
}

/// `Node { 1 kind, 2 data }`: the operator, if it is one.
fn operator_of(node: Table<'_>) -> Result<Option<Table<'_>>, PreparedError> {
    if node.number::<1>(1, NODE)? != Some([OPERATOR_NODE]) {
        return Ok(None);
    }
    let data = node.table(2, NODE)?;
    data.ok_or(PreparedError::Malformed { what: NODE })
        .map(Some)
}

/// `OperatorNode { 1 kind of attributes, 2 attributes }`: the fields of the attributes that are graphs, and the
/// attributes. `IfAttrs { 0 then_branch, 1 else_branch }`, `LoopAttrs { 0 body }`.
fn graphs_in(operator: Table<'_>) -> Result<(&'static [usize], Option<Table<'_>>), PreparedError> {
    let fields: &[usize] = match operator.number::<1>(1, NODE)? {
        Some([IF_ATTRIBUTES]) => &[0, 1],
        Some([LOOP_ATTRIBUTES]) => &[0],
        _ => &[],
    };
    Ok((fields, operator.table(2, NODE)?))
}

/// Whether a convolution pads: `ConvAttrs { 0 auto_pad, 1 pads }`. An absent `auto_pad` means that it does.
fn pads(attributes: Option<Table<'_>>) -> Result<bool, PreparedError> {
    let Some(attributes) = attributes else {
        return Ok(true);
    };
    let as_told = attributes.number::<1>(0, NODE)? == Some([PADS_AS_TOLD]);
    let pads = attributes.vector(1, 4, NODE)?;
    if pads.is_some_and(|pads| pads.length() > 2 * TENSOR_RANK_MAX) {
        return Err(PreparedError::Malformed {
            what: "a convolution's padding",
        });
    }
    let told = pads.into_iter().flat_map(Vector::words).any(|pad| pad != 0);
    Ok(!as_told || told)
}

/// Padded convolutions that are named; one is enough to tell.
const PADDED_NAMED_MAX: usize = 16;

const GRAPH: &str = "its graph";
const NODE: &str = "a node";

/// `NodeKind`.
const OPERATOR_NODE: u8 = 1;
const VALUE_NODE: u8 = 3;
/// `OperatorType`.
const DYNAMIC_QUANTIZE_LINEAR: u8 = 107;
const CONV_INTEGER: u8 = 110;
/// `OperatorAttrs`.
const IF_ATTRIBUTES: u8 = 39;
const LOOP_ATTRIBUTES: u8 = 49;
/// `AutoPad`.
const PADS_AS_TOLD: u8 = 1;
