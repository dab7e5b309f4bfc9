//! The columns of views of ids that are linked, and of persons.

use whisperer_schemas::{Column, ColumnType};

use super::{Columns, Compiler, ViewPlan, Word};
use crate::{features::Read, job::describe, spec::Entity};

impl Compiler<'_> {
    /// Columns that an id is told by.
    pub(super) fn ids(&self) -> usize {
        match self.spec.entity {
            Entity::AppUser => 2,
            Entity::User => 1,
        }
    }

    pub(super) fn identities(&self, columns: &mut Columns) -> ViewPlan {
        columns.id("app_id", "Application of the id", self.ids() > 1);
        columns.id("user_id", "An id that is linked", true);
        columns.id("canonical_id", "The id that stands for its person", true);
        let doc = "Links of the id that do not count, since its person would have too many ids";
        columns.add(Column::required("refused_links", ColumnType::Int, "links", doc), Word::Count);
        ViewPlan::Identities
    }

    pub(super) fn profiles(&self, columns: &mut Columns) -> ViewPlan {
        columns.id("app_id", "Application of the person", self.ids() > 1);
        columns.id("canonical_id", "The id that stands for the person", true);
        columns.add(Column::required("user_ids", ColumnType::Int, "ids", "Ids of the person"), Word::Count);
        columns.time("as_of", "The latest instant that an id has come to");
        let optional = |name: &str, kind, doc: &str| Column::optional(name, kind, "", doc);
        for score in &self.spec.scores {
            let name = &score.name.value;
            columns.add(optional(name, ColumnType::Number, "Score"), Word::Number);
            if !score.levels.is_empty() {
                let levels = score.levels.iter().map(|(name, _)| name.value.clone()).collect();
                let column = optional(&format!("{name}_level"), ColumnType::Text, "Level of the score");
                columns.add(column, Word::Choice(levels));
            }
        }
        for (feature, spec) in self.features.features.iter().zip(&self.spec.features) {
            let doc = describe(spec);
            match feature.text {
                true => columns.add(optional(&feature.name, ColumnType::Text, &doc), Word::OptionalText),
                false => columns.add(optional(&feature.name, ColumnType::Number, &doc), Word::Number),
            }
            if matches!(feature.read, Read::Distinct { .. }) {
                let doc = "Whether there were more different values than are kept of an id";
                let name = format!("{}_capped", feature.name);
                columns.add(Column::required(&name, ColumnType::Bool, "", doc), Word::Flag);
            }
        }
        if !self.spec.stages.is_empty() {
            columns.choice("lifecycle_stage", self.names.stages.clone(), "Stage of the person");
        }
        ViewPlan::Profiles
    }
}
