//! The bound of a node's log files where its descriptor sets none: dora would let them grow until the disk is full.

use dora_core::descriptor::ResolvedNode;
use dora_message::descriptor::CoreNodeKind;

/// Files of one node, the current one included: what must go when space is wanted goes a file at a time.
const FILES: u32 = 16;
/// Least bytes of one file, so that files are not renamed for every few lines.
const MIN_FILE_BYTES: u64 = 64 << 10;

/// Bounds the log files of a node to `bytes` together, unless its descriptor says what it wants.
pub(crate) fn set(node: &mut ResolvedNode, bytes: u64) {
    let mut places: Vec<_> = match &mut node.kind {
        CoreNodeKind::Custom(custom) => vec![(&mut custom.max_log_size, &mut custom.max_rotated_files)],
        CoreNodeKind::Runtime(runtime) => runtime
            .operators
            .iter_mut()
            .map(|operator| (&mut operator.config.max_log_size, &mut operator.config.max_rotated_files))
            .collect(),
    };
    if places.iter().any(|(size, _)| size.is_some()) {
        return;
    }
    let wanted = places.iter().find_map(|(_, rotated)| **rotated);
    // Dora accepts one operator of a node that says it for all.
    let Some((size, rotated)) = places.first_mut() else {
        return;
    };
    let files = wanted.map_or(FILES, |rotated| rotated.saturating_add(1));
    **size = Some((bytes / u64::from(files)).max(MIN_FILE_BYTES).to_string());
    if wanted.is_none() {
        **rotated = Some(FILES - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{checked, order};
    use dora_core::descriptor::validate::ResolvedNodeExt as _;

    fn caps(yaml: &str) -> (u64, u32) {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("op.py"), "").expect("a file");
        let yaml = format!("nodes:\n  - {yaml}\n");
        let order = order(&yaml, &[("a", "here", false)], dir.path().to_str().expect("UTF-8"));
        let mut node = checked(&order).nodes.into_values().next().expect("one node");
        set(&mut node, 32 << 20);
        let size = node.max_log_size().expect("dora reads it").expect("a bound");
        (size, node.max_rotated_files().expect("dora reads it").expect("a number"))
    }

    #[test]
    fn a_node_is_bounded_unless_its_descriptor_does_it() {
        assert_eq!(caps("{id: a, path: /bin/sh}"), (2 << 20, 15));
        assert_eq!(caps("{id: a, path: /bin/sh, max_rotated_files: 3}"), (8 << 20, 3));
        assert_eq!(
            caps("{id: a, path: /bin/sh, max_log_size: 7KB, max_rotated_files: 1}"),
            (7 << 10, 1)
        );
    }
}
