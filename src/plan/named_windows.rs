//! Replaces named windows by their definitions: `OVER (w ROWS 1 PRECEDING)`, `WINDOW w AS (PARTITION BY k), w2
//! AS (w ORDER BY id)`.
//!
//! DataFusion supports only `OVER w`; where a window builds on another one, it ignores that one's name. As in
//! the standard, a window takes the partitions and the order of the one that it builds on; it may add an order
//! if that one has none, and a frame if that one has none.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr, Spanned, VisitMut, VisitorMut,
    WindowSpec, WindowType,
};

use super::error::Refusal;

/// Replaces the named windows in a statement of a live query. An error has a message and its remedy.
///
/// # Errors
/// A window builds on one that is not defined, or repeats a clause of that one.
pub fn windows_asked(sql: &mut impl VisitMut) -> Result<(), (String, String)> {
    inline_windows(sql).map_err(Refusal::into_texts)
}

/// Replaces the named windows of a query.
pub(super) fn inline_windows(sql: &mut impl VisitMut) -> Result<(), Refusal> {
    Refusal::of_visit(sql.visit(&mut Selects))
}

struct Selects;

impl VisitorMut for Selects {
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Refusal>> {
        let SetExpr::Select(select) = query.body.as_mut() else {
            return ControlFlow::Continue(());
        };
        let known = match defined(select) {
            Ok(known) => known,
            Err(refusal) => return ControlFlow::Break(Box::new(refusal)),
        };
        let mut uses = Uses {
            known: &known,
            depth: 0,
        };
        // The ORDER BY of a query may use the windows of its SELECT.
        if let Some(order) = &mut query.order_by {
            VisitMut::visit(order, &mut uses)?;
        }
        used(select, &mut uses)
    }

    /// Also visits each SELECT of a set operation.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Refusal>> {
        match defined(select) {
            Ok(known) => used(
                select,
                &mut Uses {
                    known: &known,
                    depth: 0,
                },
            ),
            Err(refusal) => ControlFlow::Break(Box::new(refusal)),
        }
    }
}

/// Takes the named windows out of a SELECT, each as its full definition.
fn defined(select: &mut Select) -> Result<Vec<(Ident, WindowSpec)>, Refusal> {
    let mut known: Vec<(Ident, WindowSpec)> = vec![];
    for NamedWindowDefinition(name, made) in std::mem::take(&mut select.named_window) {
        let spec = match made {
            NamedWindowExpr::NamedWindow(of) => find(&of, &known)?.clone(),
            NamedWindowExpr::WindowSpec(spec) => resolved(spec, &known)?,
        };
        if find(&name, &known).is_ok() {
            return Err(Refusal::new(format!("could not name two windows {:?}", name.value))
                .help("name one of them anew")
                .at(Some(name.span)));
        }
        known.push((name, spec));
    }
    Ok(known)
}

/// Window functions may stand in the SELECT list and in QUALIFY.
fn used(select: &mut Select, uses: &mut Uses<'_>) -> ControlFlow<Box<Refusal>> {
    for item in &mut select.projection {
        VisitMut::visit(item, uses)?;
    }
    for expr in select.qualify.iter_mut() {
        VisitMut::visit(expr, uses)?;
    }
    ControlFlow::Continue(())
}

/// Replaces the names of windows in the functions of one SELECT.
struct Uses<'a> {
    known: &'a [(Ident, WindowSpec)],
    /// How many subqueries enclose the expression; their window names are their own.
    depth: usize,
}

impl VisitorMut for Uses<'_> {
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<Refusal>> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<Refusal>> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Refusal>> {
        let Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let spec = match function.over.take() {
            Some(WindowType::NamedWindow(name)) => find(&name, self.known).cloned(),
            Some(WindowType::WindowSpec(spec)) => resolved(spec, self.known),
            None => return ControlFlow::Continue(()),
        };
        match spec {
            Ok(spec) => {
                function.over = Some(WindowType::WindowSpec(spec));
                ControlFlow::Continue(())
            }
            Err(refusal) => ControlFlow::Break(Box::new(refusal)),
        }
    }
}

fn find<'a>(name: &Ident, known: &'a [(Ident, WindowSpec)]) -> Result<&'a WindowSpec, Refusal> {
    let plain = |ident: &Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    let definition = known.iter().find(|(of, _)| plain(of) == plain(name));
    definition.map(|(_, spec)| spec).ok_or_else(|| {
        Refusal::new(format!("could not find the window {:?}", name.value))
            .help("define it in the WINDOW clause, before what builds on it")
            .at(Some(name.span))
    })
}

/// A window definition completed by the window on which it builds.
fn resolved(mut spec: WindowSpec, known: &[(Ident, WindowSpec)]) -> Result<WindowSpec, Refusal> {
    let Some(name) = spec.window_name.take() else {
        return Ok(spec);
    };
    let base = find(&name, known)?;
    let refused = |what: &str, help: &str| {
        Err(
            Refusal::new(format!("could not build on the window {:?}: {what}", name.value))
                .help(help)
                .at(Some(name.span)),
        )
    };
    if let Some(partition) = spec.partition_by.first() {
        let span = partition.span();
        return refused(
            "PARTITION BY stands behind its name",
            "leave PARTITION BY to the window that is named",
        )
        .map_err(|refusal: Refusal| refusal.at(Some(span)));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return refused("it has an ORDER BY of its own", "leave ORDER BY to one of them");
    }
    if base.window_frame.is_some() {
        return refused(
            "it has a frame of its own",
            "write OVER w without parentheses, or leave the frame to one of them",
        );
    }
    spec.partition_by.clone_from(&base.partition_by);
    if spec.order_by.is_empty() {
        spec.order_by.clone_from(&base.order_by);
    }
    Ok(spec)
}
