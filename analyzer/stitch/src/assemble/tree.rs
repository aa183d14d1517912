//! The tree of spans: its order, depths and self times.

use super::links::Link;
use super::node::Node;
use wirespan_records::Rule;

/// Deeper spans are left out.
pub(super) const MAX_DEPTH: u32 = 256;

/// A span's place in the tree.
pub(super) struct Place {
    pub node: usize,
    pub depth: u32,
    pub link: Option<Link>,
}

/// Parents before children, these in the order they began; and the children of each span.
pub(super) struct Tree {
    pub places: Vec<Place>,
    children: Vec<Vec<usize>>,
    /// Spans that are deeper than allowed.
    pub too_deep: usize,
}

/// Puts the spans in order. `parents` has one for each path, `paths` are in order.
pub(super) fn build(paths: &[Vec<usize>], parents: &[Option<Link>], nodes: &[Node]) -> Tree {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut links: Vec<Option<Link>> = vec![None; nodes.len()];
    let mut roots = Vec::new();
    for (path, parent) in paths.iter().zip(parents) {
        let certainty = |index: &usize| nodes.get(*index).map_or(1.0, |n| n.certainty);
        let steps = path.windows(2).filter_map(|step| match step {
            [from, to] => Some((
                *to,
                Link { node: *from, rule: Rule::Path, confidence: certainty(from).min(certainty(to)) },
            )),
            _ => None,
        });
        let head = path.first().and_then(|&head| parent.map(|link| (head, link)));
        for (child, link) in steps.chain(head) {
            if let (Some(slot), Some(siblings)) = (links.get_mut(child), children.get_mut(link.node)) {
                *slot = Some(link);
                siblings.push(child);
            }
        }
        if parent.is_none() {
            roots.extend(path.first().copied());
        }
    }
    let began = |index: &usize| nodes.get(*index).map(|n| (n.start, n.id));
    for siblings in &mut children {
        siblings.sort_by_key(began);
    }
    roots.sort_by_key(began);
    let mut places = Vec::with_capacity(nodes.len());
    let mut open: Vec<(usize, u32)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
    while let Some((node, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            continue;
        }
        places.push(Place { node, depth, link: links.get(node).copied().flatten() });
        let below = children.get(node).map_or(&[][..], Vec::as_slice);
        open.extend(below.iter().rev().map(|&child| (child, depth + 1)));
    }
    let too_deep = nodes.len() - places.len();
    Tree { places, children, too_deep }
}

impl Tree {
    /// The part of a span's time in which none of its children ran, ns.
    pub(super) fn self_time(&self, index: usize, nodes: &[Node]) -> i64 {
        let Some(node) = nodes.get(index) else { return 0 };
        let mut covered = 0;
        let mut until = node.start;
        for child in self.children.get(index).into_iter().flatten().filter_map(|&c| nodes.get(c)) {
            let (from, to) = (child.start.max(until), child.end.min(node.end));
            if to > from {
                covered += to - from;
                until = to;
            }
        }
        node.duration() - covered
    }
}
