//! The text of an intervention, for messages, captions and files.

use std::fmt;

use super::intervention::Intervention;

/// More items than these are counted instead of listed.
const MAX_LISTED: usize = 6;

impl fmt::Display for Intervention {
    /// The change, the hook point and the selection: `zero blocks.9.attn.hook_z, head 9, pos -1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.point)?;
        let selection = &self.selection;
        list(f, "head", "heads", selection.heads.as_deref())?;
        list(f, "pos", "positions", selection.positions.as_deref())?;
        list(f, "key", "keys", selection.keys.as_deref())?;
        let cells =
            selection.cells.as_ref().map(|cells| cells.iter().map(|(q, k)| format!("({q}, {k})")).collect::<Vec<_>>());
        list(f, "cell", "cells", cells.as_deref())?;
        list(f, "neuron", "neurons", selection.neurons.as_deref())?;
        list(f, "prompt", "prompts", selection.prompts.as_deref())
    }
}

impl fmt::Debug for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intervention({self})")
    }
}

/// `, head 3`, `, heads 3 5`, `, 12 heads`, or nothing.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, one: &str, several: &str, items: Option<&[T]>) -> fmt::Result {
    match items {
        None => Ok(()),
        Some([item]) => write!(f, ", {one} {item}"),
        Some(items) if items.len() > MAX_LISTED => write!(f, ", {} {several}", items.len()),
        Some(items) => {
            write!(f, ", {several}")?;
            items.iter().try_for_each(|item| write!(f, " {item}"))
        }
    }
}
