//! The embedded store against the fold, tree by tree. Reads values only.

use std::collections::BTreeMap;

use super::objects;
use crate::model::State;

/// How many trees there are.
pub(super) const TREES: usize = objects::TREES.len();

/// Objects of a state, as many as the trees have rows.
pub(super) fn rows(state: &State) -> usize {
    objects::all_keys(state).len() + 1
}

type Objects = BTreeMap<Vec<u8>, Vec<u8>>;

fn by_tree(state: &State) -> Vec<Objects> {
    let mut trees = vec![Objects::new(); TREES];
    for key in objects::all_keys(state) {
        let (tree, place) = key.place();
        if let (Some(rows), Ok(Some(value))) = (trees.get_mut(tree), key.value(state)) {
            rows.insert(place, value);
        }
    }
    if let (Some(meta), Ok(value)) = (trees.get_mut(objects::META), serde_json::to_vec(&state.meta)) {
        meta.insert(b"meta".to_vec(), value);
    }
    trees
}

/// What `held` (read from the embedded store) lacks, has too much or has otherwise than `fold`, per tree. Empty = equal.
pub(super) fn differences(held: &State, fold: &State) -> Vec<String> {
    if held == fold {
        return Vec::new();
    }
    let (ours, theirs) = (by_tree(fold), by_tree(held));
    let mut wrong = Vec::new();
    for ((name, ours), theirs) in objects::TREES.iter().zip(&ours).zip(&theirs) {
        let missing = ours.keys().filter(|key| !theirs.contains_key(*key)).count();
        let extra = theirs.keys().filter(|key| !ours.contains_key(*key)).count();
        let other = ours.iter().filter(|(key, value)| theirs.get(*key).is_some_and(|held| held != *value)).count();
        if missing + extra + other > 0 {
            wrong.push(format!(
                "tree {name} does not equal the fold: {missing} objects missing, {extra} too many, {other} otherwise"
            ));
        }
    }
    if wrong.is_empty() {
        wrong.push("its content does not equal the fold".to_owned());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_tree_and_how_many_objects() {
        let fold = State::default();
        assert!(differences(&fold, &fold).is_empty());
        let mut held = fold.clone();
        held.meta.seq = 7;
        let told = differences(&held, &fold);
        assert!(told.len() == 1 && told[0].contains("0 objects missing, 0 too many, 1 otherwise"), "{told:?}");
    }
}
