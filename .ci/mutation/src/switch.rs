//! Rewrites one source file so that every mutant of it is there at once, behind `crate::mutant::on(NUMBER)`.
//!
//! Each place keeps comments that say which mutants it holds, so that an error of the compiler leads back to them.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, anyhow};
use proc_macro2::Span;
use syn::{
    Arm, BinOp, Block, Expr, ExprBinary, ExprStruct, ExprUnary, ImplItemFn, ItemConst, ItemFn, ItemStatic, Signature,
    TraitItemFn, spanned::Spanned, visit::Visit,
};

use crate::mutants::{Mutants, Out, Place};

/// The text that opens and closes the code of one mutant, and of a place with mutants.
pub const MUTANT: &str = "/*m";
pub const END: &str = "/*e*/";
pub const PLACE: &str = "/*p";

/// A piece of the source that is written differently.
struct Node {
    start: usize,
    end: usize,
    ids: Vec<usize>,
    kind: Kind,
}

enum Kind {
    /// One of the texts instead of the piece.
    Choose(Vec<(usize, String)>),
    /// Only with a guard that says no when the mutant is on.
    Guard(usize),
    /// Put before the piece, which is empty.
    Insert(String),
    /// The piece is dropped: the word `const` of a function.
    Drop,
}

/// What one file became.
pub struct Switched {
    pub text: String,
    pub apart: Vec<usize>,
    pub unviable: Vec<usize>,
}

struct Finder<'a> {
    source: &'a str,
    /// By genre and place.
    wanted: HashMap<(&'a str, Place), Vec<usize>>,
    mutants: &'a Mutants,
    nodes: Vec<Node>,
    apart: Vec<usize>,
    unviable: Vec<usize>,
    /// Names of functions that must stay `const`.
    keep_const: &'a BTreeSet<String>,
    /// Inside of a constant nothing can be switched.
    constant: bool,
    impl_return: bool,
}

fn place(span: Span) -> Place {
    Place { line: span.start().line, column: span.start().column + 1 }
}

/// Whether a chain of conditions has a `let`, so that it cannot stand in brackets.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(ExprBinary { op: BinOp::And(_), left, right, .. }) => has_let(left) || has_let(right),
        _ => false,
    }
}

impl<'a> Finder<'a> {
    fn take(&mut self, genre: &'a str, span: Span) -> Vec<usize> {
        let ids = self.wanted.remove(&(genre, place(span))).unwrap_or_default();
        if self.constant {
            self.apart.extend(ids);
            return Vec::new();
        }
        ids
    }

    fn text(&self, start: usize, end: usize) -> &'a str {
        &self.source[start..end]
    }

    fn replacement(&self, id: usize) -> String {
        self.mutants.get(id).map(|mutant| mutant.replacement.clone()).unwrap_or_default()
    }

    fn choose(&mut self, span: Span, choices: Vec<(usize, String)>) {
        if choices.is_empty() {
            return;
        }
        let range = span.byte_range();
        let ids = choices.iter().map(|(id, _)| *id).collect();
        self.nodes.push(Node { start: range.start, end: range.end, ids, kind: Kind::Choose(choices) });
    }

    fn function(&mut self, sig: &Signature, block: &Block, walk: impl FnOnce(&mut Self)) {
        let keeps = self.keep_const.contains(&sig.ident.to_string());
        let before = (self.constant, self.impl_return);
        self.constant = sig.constness.is_some() && keeps;
        self.impl_return = matches!(&sig.output, syn::ReturnType::Type(_, kind) if matches!(**kind, syn::Type::ImplTrait(_)));
        let count = self.nodes.len();
        if let Some(first) = block.stmts.first() {
            let ids = self.take("FnValue", first.span());
            if self.impl_return {
                self.apart.extend(ids);
            } else if !ids.is_empty() {
                let text: String = ids
                    .iter()
                    .map(|id| {
                        let value = self.replacement(*id);
                        format!("{MUTANT}{id}*/if crate::mutant::on({id}) {{ return {value}; }}{END} ")
                    })
                    .collect();
                let at = first.span().byte_range().start;
                self.nodes.push(Node { start: at, end: at, ids, kind: Kind::Insert(text) });
            }
        }
        walk(self);
        if let (Some(word), false, true) = (sig.constness, self.constant, self.nodes.len() > count) {
            let range = word.span.byte_range();
            self.nodes.push(Node { start: range.start, end: range.end, ids: Vec::new(), kind: Kind::Drop });
        }
        (self.constant, self.impl_return) = before;
    }

    fn in_constant(&mut self, walk: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.constant, true);
        walk(self);
        self.constant = before;
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, &item.block, |finder| syn::visit::visit_item_fn(finder, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, &item.block, |finder| syn::visit::visit_impl_item_fn(finder, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block, |finder| syn::visit::visit_trait_item_fn(finder, item));
        }
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        self.in_constant(|finder| syn::visit::visit_item_const(finder, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.in_constant(|finder| syn::visit::visit_impl_item_const(finder, item));
    }

    fn visit_item_static(&mut self, item: &'ast ItemStatic) {
        self.in_constant(|finder| syn::visit::visit_item_static(finder, item));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.in_constant(|finder| syn::visit::visit_type_array(finder, array));
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
        self.in_constant(|finder| finder.visit_expr(&repeat.len));
    }

    fn visit_expr_binary(&mut self, expr: &'ast ExprBinary) {
        let ids = self.take("BinaryOperator", expr.op.span());
        let (whole, op) = (expr.span().byte_range(), expr.op.span().byte_range());
        if has_let(&expr.left) || has_let(&expr.right) {
            // `||` cannot stand in a chain with `let`.
            self.unviable.extend(ids);
        } else {
            let (before, after) = (self.text(whole.start, op.start), self.text(op.end, whole.end));
            let choices = ids.into_iter().map(|id| (id, format!("{before}{}{after}", self.replacement(id)))).collect();
            self.choose(expr.span(), choices);
        }
        syn::visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast ExprUnary) {
        let ids = self.take("UnaryOperator", expr.op.span());
        let inner = expr.expr.span().byte_range();
        let inner = self.text(inner.start, inner.end).to_owned();
        self.choose(expr.span(), ids.into_iter().map(|id| (id, inner.clone())).collect());
        syn::visit::visit_expr_unary(self, expr);
    }

    fn visit_expr_match(&mut self, expr: &'ast syn::ExprMatch) {
        // A catch-all with a guard catches nothing for certain: without an arm the match does not build.
        let catches = expr.arms.iter().any(|arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none());
        for arm in &expr.arms {
            for id in self.take("MatchArm", arm.span()) {
                if catches {
                    let at = arm.pat.span().byte_range().end;
                    self.nodes.push(Node { start: at, end: at, ids: vec![id], kind: Kind::Guard(id) });
                } else {
                    self.unviable.push(id);
                }
            }
        }
        syn::visit::visit_expr_match(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        if let Some((_, guard)) = &arm.guard {
            let ids = self.take("MatchArmGuard", guard.span());
            if has_let(guard) {
                self.apart.extend(ids);
            } else {
                self.choose(guard.span(), ids.into_iter().map(|id| (id, self.replacement(id))).collect());
            }
        }
        syn::visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expr: &'ast ExprStruct) {
        let whole = expr.span().byte_range();
        let choices = expr
            .fields
            .pairs()
            .flat_map(|pair| {
                let field = pair.value().span();
                let end = pair.punct().map_or(field.byte_range().end, |comma| comma.span().byte_range().end);
                let text =
                    format!("{}{}", self.text(whole.start, field.byte_range().start), self.text(end, whole.end));
                self.take("StructField", field).into_iter().map(move |id| (id, text.clone())).collect::<Vec<_>>()
            })
            .collect();
        self.choose(expr.span(), choices);
        syn::visit::visit_expr_struct(self, expr);
    }
}

/// Writes the pieces of `nodes` within `start..end`; they nest.
fn render(source: &str, start: usize, end: usize, nodes: &[Node]) -> String {
    let (mut out, mut at, mut index) = (String::new(), start, 0);
    while let Some(node) = nodes.get(index) {
        let inside = 1 + nodes[index + 1..].iter().take_while(|inner| inner.end <= node.end && inner.start < node.end).count();
        let inner = &nodes[index + 1..index + inside];
        out.push_str(&source[at..node.start]);
        let ids = node.ids.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        match &node.kind {
            Kind::Insert(text) => out.push_str(text),
            Kind::Drop => {}
            Kind::Guard(id) => out.push_str(&format!(" {PLACE}{ids}*/if !crate::mutant::on({id}){END}")),
            Kind::Choose(choices) => {
                out.push_str(&format!("({PLACE}{ids}*/"));
                for (id, text) in choices {
                    out.push_str(&format!("if crate::mutant::on({id}) {{ {MUTANT}{id}*/{text}{END} }} else "));
                }
                out.push_str(&format!("{{ {} }}{END})", render(source, node.start, node.end, inner)));
            }
        }
        at = node.end.max(at);
        index += if matches!(node.kind, Kind::Choose(_)) { inside } else { 1 };
    }
    out.push_str(&source[at..end]);
    out
}

/// Rewrites `source`, the file `file`.
pub fn switch(file: &str, source: &str, ids: &[usize], mutants: &Mutants, keep_const: &BTreeSet<String>) -> Result<Switched> {
    let parsed = syn::parse_file(source).map_err(|error| anyhow!("{file}: {error}"))?;
    let mut wanted: HashMap<(&str, Place), Vec<usize>> = HashMap::new();
    for id in ids {
        if let Some(mutant) = mutants.get(*id) {
            wanted.entry((&mutant.genre, mutant.span.start)).or_default().push(*id);
        }
    }
    let mut finder = Finder {
        source,
        wanted,
        mutants,
        nodes: Vec::new(),
        apart: Vec::new(),
        unviable: Vec::new(),
        keep_const,
        constant: false,
        impl_return: false,
    };
    finder.visit_file(&parsed);
    let Finder { wanted, mut nodes, mut apart, unviable, .. } = finder;
    // What was not met in the sources (the body of a macro) has no place to be switched at.
    apart.extend(wanted.into_values().flatten());
    // Outer before inner; an empty piece before what begins where it stands.
    nodes.sort_by(|a, b| (a.start, a.end != a.start, std::cmp::Reverse(a.end)).cmp(&(b.start, b.end != b.start, std::cmp::Reverse(b.end))));
    let text = render(source, 0, source.len(), &nodes);
    Ok(Switched { text, apart, unviable })
}

/// What an error of the compiler at `offset` of a rewritten file says: which mutants cannot be there.
pub fn blame(text: &str, offset: usize) -> Option<(Vec<usize>, Out)> {
    let mut open: Vec<(Vec<usize>, Out)> = Vec::new();
    let mut at = 0;
    while at < offset {
        let rest = &text[at..offset];
        let next = [MUTANT, PLACE, END].into_iter().filter_map(|mark| rest.find(mark).map(|found| (found, mark))).min();
        let Some((found, mark)) = next else { break };
        at += found + mark.len();
        if mark == END {
            open.pop();
        } else {
            let list = text[at..].split("*/").next().unwrap_or_default();
            let ids = list.split(',').filter_map(|id| id.parse().ok()).collect();
            open.push((ids, if mark == MUTANT { Out::Unviable } else { Out::Apart }));
        }
    }
    open.pop()
}
