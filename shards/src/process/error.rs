//! What can be wrong with sections, panels, splits and configuration, said with the facts.

use thiserror::Error;

/// Why a data set could not be processed.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// No section was given.
    #[error("no section to process: name at least one input")]
    NoSections,
    /// Two sections carry one name.
    #[error("two sections are called `{library_id}`: give each its own name with NAME=PATH")]
    DuplicateSection {
        /// The name.
        library_id: String,
    },
    /// The tables of a section disagree in size.
    #[error("section `{library_id}` has {n_obs} observations but {got} {what}")]
    Shape {
        /// Section.
        library_id: String,
        /// Number of observations.
        n_obs: usize,
        /// Number of the other thing.
        got: usize,
        /// The other thing.
        what: &'static str,
    },
    /// A coordinate is NaN or infinite.
    #[error(
        "section `{library_id}`, observation `{obs_id}`: its position ({x}, {y}) is not finite; remove it or mend the positions"
    )]
    Position {
        /// Section.
        library_id: String,
        /// Observation.
        obs_id: String,
        /// First coordinate.
        x: f64,
        /// Second coordinate.
        y: f64,
    },
    /// Cells that no picture shows.
    #[error("section `{library_id}`: {n} cell(s) without a picture, first `{obs_id}`: {reason}; {advice}")]
    NoCrop {
        /// Section.
        library_id: String,
        /// First cell.
        obs_id: String,
        /// How many.
        n: usize,
        /// Why the first has none.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// Sections whose pictures differ in channels.
    #[error(
        "section `{library_id}` has pictures with channels {channels}, section `{first}` {expected}: give all sections the \
         same (input.images, input.image_channels)"
    )]
    Channels {
        /// Section.
        library_id: String,
        /// Its channels.
        channels: String,
        /// First section.
        first: String,
        /// Its channels.
        expected: String,
    },
    /// Nothing is shared by all sections.
    #[error(
        "the {n_sections} sections have no gene in common (first ids: {examples}): are they of one species and one kind of identifier?"
    )]
    NoCommonGene {
        /// Number of sections.
        n_sections: usize,
        /// First gene id of each section.
        examples: String,
    },
    /// Sections and reference share nothing.
    #[error(
        "none of the {n_ours} genes of the sections is among the {n_theirs} of the reference; nearest names: {nearest}; {advice}"
    )]
    NoSharedGene {
        /// Genes of the sections.
        n_ours: usize,
        /// Genes of the reference.
        n_theirs: usize,
        /// A few names with the nearest of the reference.
        nearest: String,
        /// What to look at.
        advice: String,
    },
    /// Too few genes are in the reference.
    #[error(
        "{lost} of the {n_genes} genes of the sections are not in the reference, a share of {share:.3} above \
         filter.max_genes_lost = {limit}; align the names or raise the key"
    )]
    GenesNotInReference {
        /// Genes lost.
        lost: usize,
        /// Genes there were.
        n_genes: usize,
        /// `lost / n_genes`.
        share: f64,
        /// The threshold.
        limit: f64,
    },
    /// More folds than genes.
    #[error("data.folds = {folds}, but sections and reference share {n_genes} genes: a fold hides at least one")]
    TooManyFolds {
        /// Folds asked for.
        folds: u32,
        /// Genes there are.
        n_genes: usize,
    },
    /// Observations at one place.
    #[error(
        "section `{library_id}`: {n} observation(s) lie at the place of another, first `{first}` and `{second}` at ({x}, {y}): are the \
         coordinates right? input.on_bad_cell = \"skip\" leaves the later ones out and counts them"
    )]
    SamePlace {
        /// Section.
        library_id: String,
        /// How many lie at the place of an earlier one.
        n: usize,
        /// An observation.
        first: String,
        /// Another at its place.
        second: String,
        /// Its place.
        x: f64,
        /// Its place.
        y: f64,
    },
    /// The inner join of the panels loses too much.
    #[error(
        "section `{library_id}`: {lost} of its {n_genes} genes are missing in other sections, a share of {share:.3} above \
         filter.max_genes_lost = {limit}; align the panels or raise the key"
    )]
    GenesLost {
        /// Section that loses most.
        library_id: String,
        /// Genes lost.
        lost: usize,
        /// Genes it had.
        n_genes: usize,
        /// `lost / n_genes`.
        share: f64,
        /// The threshold.
        limit: f64,
    },
    /// A filter left nothing.
    #[error(
        "{rule} leaves no {what} ({before} before it): loosen it in the shard config, or check that X holds counts"
    )]
    NothingLeft {
        /// `gene` or `observation`.
        what: &'static str,
        /// The rule, with its keys.
        rule: String,
        /// How many there were.
        before: usize,
    },
    /// No gene has a length.
    #[error(
        "none of the {n_genes} genes has a length (first id: `{first_id}`; species by identifier: {species}): TPM needs Ensembl ids of \
         human (ENSG…) or mouse (ENSMUSG…); set process.normalize = \"cp10k\" for other identifiers"
    )]
    NoLength {
        /// Genes asked for.
        n_genes: usize,
        /// The first of them.
        first_id: String,
        /// What the identifiers look like.
        species: &'static str,
    },
    /// A piece is too small for its neighbourhoods.
    #[error(
        "section `{library_id}`, split {split}: {n_obs} observations are fewer than the {needed} that neighbourhoods of {n_neighbours} \
         need; lower process.n_neighbours, loosen the filters, or split by section"
    )]
    TooFewObs {
        /// Section.
        library_id: String,
        /// Split.
        split: &'static str,
        /// Observations in the piece.
        n_obs: usize,
        /// Observations needed.
        needed: usize,
        /// `process.n_neighbours`, or 6 for the base graph.
        n_neighbours: usize,
    },
    /// A split names what is not there.
    #[error("split.{list} names `{name}`, but the {kind}s are: {present}")]
    UnknownName {
        /// `val` or `test`.
        list: &'static str,
        /// The name asked for.
        name: String,
        /// `section` or `donor`.
        kind: &'static str,
        /// What there is.
        present: String,
    },
    /// A name stands in two lists, or twice in one.
    #[error("split: `{name}` is named more than once in val and test; each belongs to one split")]
    NamedTwice {
        /// The name.
        name: String,
    },
    /// Everything is held out.
    #[error("split: val and test take every {kind}, none is left to train on")]
    NoTraining {
        /// `section` or `donor`.
        kind: &'static str,
    },
    /// A donor split without donors.
    #[error(
        "{key} = \"donor\", but section `{library_id}` has no donor_id; name it at ingest or write {key} = \"section\""
    )]
    NoDonor {
        /// `split.kind` or `process.combat_key`.
        key: &'static str,
        /// Section.
        library_id: String,
    },
    /// Sections carry different features.
    #[error(
        "section `{library_id}` carries {n} feature columns, the first section {expected}, or others of that number: all must \
         have the same (input.features)"
    )]
    Features {
        /// Section.
        library_id: String,
        /// Its columns.
        n: usize,
        /// Columns of the first.
        expected: usize,
    },
    /// Features of a picture that is not there.
    #[error("section `{library_id}` has no picture to take process.picture_features from")]
    NoPicture {
        /// Section.
        library_id: String,
    },
    /// Keys of the configuration that do not go together.
    #[error("{key}: {problem}")]
    Config {
        /// Dotted key.
        key: &'static str,
        /// What is wrong and what to write.
        problem: String,
    },
}
