//! Which kinds are served: the built-in ones, and those of CustomResourceDefinitions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::kinds::BUILT_IN;
use crate::resource::{Resource, Scale};
use crate::schema::Schema;

/// The kinds by group, version and plural.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    order: Vec<Arc<Resource>>,
    index: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Kinds {
    /// The built-in kinds and those of definitions; schemas that are as before are taken over, since they are
    /// large and compiled bit by bit.
    pub(crate) fn new(definitions: &[Arc<Value>], before: &Self) -> Self {
        let mut kinds = Self::default();
        BUILT_IN.iter().for_each(|r| kinds.add((*r).clone()));
        definitions.iter().flat_map(|d| from_definition(d, before)).for_each(|r| kinds.add(r));
        kinds
    }

    /// The first to claim a place keeps it: a definition cannot replace a built-in kind.
    fn add(&mut self, r: Resource) {
        let place = (r.group.to_string(), r.version.to_string(), r.plural.to_string());
        if let std::collections::btree_map::Entry::Vacant(free) = self.index.entry(place) {
            self.order.push(free.insert(Arc::new(r)).clone());
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Resource>> {
        self.order.clone()
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.index.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }
}

/// The kinds of one CustomResourceDefinition: one for each served version.
fn from_definition(definition: &Value, before: &Kinds) -> Vec<Resource> {
    let spec = &definition["spec"];
    let text = |v: &Value| Cow::Owned(v.as_str().unwrap_or_default().to_owned());
    let words = |v: &Value| {
        let words = v.as_array().into_iter().flatten().filter_map(Value::as_str);
        Cow::Owned(words.collect::<Vec<_>>().join(" "))
    };
    let paths = |v: &Value| {
        let fields = v.as_array().into_iter().flatten().filter_map(|f| f["jsonPath"].as_str());
        Cow::Owned(fields.map(|path| path.trim_start_matches('.')).collect::<Vec<_>>().join(" "))
    };
    let schema = |v: &Value| {
        let source = &v["schema"]["openAPIV3Schema"];
        let name = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let known = before.get(&name(&spec["group"]), &name(&v["name"]), &name(&spec["names"]["plural"]));
        let same = known.and_then(|r| r.schema.clone()).filter(|s| s.source() == source);
        same.unwrap_or_else(|| Arc::new(Schema::custom(source)))
    };
    let served = |v: &&Value| v["served"] == Value::Bool(true);
    let versions = spec["versions"].as_array().into_iter().flatten().filter(served);
    let one = |v: &Value| Resource {
        group: text(&spec["group"]),
        version: text(&v["name"]),
        kind: text(&spec["names"]["kind"]),
        plural: text(&spec["names"]["plural"]),
        short_names: words(&spec["names"]["shortNames"]),
        categories: words(&spec["names"]["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        status: v["subresources"]["status"].is_object(),
        scale: v["subresources"]["scale"].is_object().then(|| Scale {
            spec_path: text(&v["subresources"]["scale"]["specReplicasPath"]),
            status_path: text(&v["subresources"]["scale"]["statusReplicasPath"]),
            selector_path: text(&v["subresources"]["scale"]["labelSelectorPath"]),
        }),
        review: false,
        schema: Some(schema(v)),
        columns: v.get("additionalPrinterColumns").map(|c| Arc::new(c.clone())),
        selectable: paths(&v["selectableFields"]),
    };
    versions.map(one).collect()
}
