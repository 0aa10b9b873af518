//! The card of an export: what the model is, what it was trained on, how well it does, what is not known. Must not know
//! files; says nothing the checkpoint or the report does not say.

use std::fmt::Write;

use serde_json::Value;

use super::layout::Layout;
use crate::model::ModelConfig;
use crate::model::spackle::InputForm;
use crate::task::TaskConfig;
use crate::train::checkpoint::NamedTensor;
use crate::train::run_folder::CheckpointFolder;
use crate::train::state::RunState;

/// What the card tells of.
pub(super) struct Card<'a> {
    pub run: &'a RunState,
    pub layout: Layout,
    pub n_parameters: usize,
    pub tensors: &'a [NamedTensor],
    pub digest: &'a str,
    pub report: Option<&'a Value>,
}

/// The card in Markdown.
pub(super) fn render(card: &Card<'_>) -> String {
    let run = card.run;
    let (mut text, sizes) = of_model(run);
    let _ = write!(
        text,
        "| | |\n|---|---|\n\
         | parameters | {n} |\n\
         {sizes}\
         | trained for | {} batches of {} × {} records, {} updates |\n\
         | seed | {} |\n\
         | gradients summed in | {} |\n\
         | data hash | `{}` |\n\
         | checkpoint (BLAKE3) | `{}` |\n\
         | trained by | syncytia {} |\n\n",
        run.global_step,
        run.config.train.lanes,
        run.config.train.micro_batch,
        run.optim_step,
        run.config.train.seed,
        run.config.train.reduction.precision(),
        run.data_hash,
        card.digest,
        run.version,
        n = card.n_parameters,
    );
    text.push_str("## How well it does\n\n");
    text.push_str(&metrics(card));
    let _ = write!(
        text,
        "\n## Files\n\n\
         - `{weights}`: f32, names and layouts of the reference implementation, linear weights `[out, in]`{template}.\n\
         - `config.json`: what is needed to build the network and its input.\n\
         - `panel.tsv`: the genes in the order of the model's columns.\n\
         - `provenance.json`: digests, versions, seed and the whole training config.\n\n\
         ```python\n\
         from safetensors.numpy import load_file\n\
         weights = load_file(\"{weights}\")  # {n_tensors} tensors\n\
         ```\n\n\
         ## Licence and limits\n\n\
         The licence of the training data is not recorded in a checkpoint: look it up before you pass these weights on. \
         Expression of genes outside the panel, of other species and of other technologies is outside what the model has \
         seen.\n",
        weights = CheckpointFolder::MODEL,
        template = match card.layout {
            Layout::Plain => "",
            Layout::Spared => "; `model.encoder_layer.*` is a copy of layer 0 that no computation uses",
        },
        n_tensors = card.tensors.len(),
    );
    text
}

/// What the model is for, and the rows of its sizes.
fn of_model(run: &RunState) -> (String, String) {
    let genes = run.shape.genes;
    match (&run.config.model, &run.config.task) {
        (ModelConfig::Spackle(model), TaskConfig::Completion(task)) => {
            let (spots, neighbours) = (run.shape.spots, run.shape.spots.saturating_sub(1));
            let text = format!(
                "# SpaCKLE for {genes} genes\n\n\
                 Completes hidden or missing gene expression of a spot from its visible genes and those of its {neighbours} \
                 nearest neighbours. Input and output are the layer `{layer}` in the gene order of `panel.tsv`; a \
                 neighbourhood is `[{spots}, {genes}]` with the spot itself in row 0{input}.\n\n",
                layer = task.layer,
                input = match model.input {
                    InputForm::Values => " and hidden entries 0",
                    InputForm::CentredWithVisibility =>
                        ": visible values less the section's mean of visible values per gene, else 0, then one visibility bit per gene",
                },
            );
            let sizes = [model.d, model.layers, model.heads, model.feed_forward].map(|n| n.to_string()).join(", ");
            (text, format!("| width, layers, heads, feed-forward | {sizes} |\n"))
        }
        (ModelConfig::Spatia(model), _) => {
            let (gene, image) = (&model.gene, &model.image);
            let text = format!(
                "# SPATIA for {genes} genes\n\n\
                 Encodes a cell's counts (at most {} genes of it, each as its share of the cell's counts) and its picture \
                 ({size} × {size} pixels of {} channels) as a vector of {} values.\n\n",
                gene.context,
                image.channels,
                model.h,
                size = image.size,
            );
            let sizes = format!(
                "| genes: width, blocks, heads | {}, {}, {} |\n| picture: patch, width, blocks, heads | {}, {}, {}, {} |\n",
                gene.width, gene.blocks, gene.heads, image.patch, image.width, image.blocks, image.heads
            );
            (text, sizes)
        }
        (ModelConfig::Generator(model), _) => {
            let (dit, gene) = (&model.dit, &model.encoder.gene);
            let text = format!(
                "# SPATIA's generator for {genes} genes\n\n\
                 Paints a cell's picture ({size} × {size} pixels of {} channels, values −1 to 1) from its counts alone (at most \
                 {} genes of it are read): noise is led to a picture by a diffusion transformer that looks at the gene \
                 encoder's tokens. No picture is an input.\n\n",
                dit.channels,
                gene.context,
                size = dit.image,
            );
            let sizes = format!(
                "| genes: width, blocks, heads | {}, {}, {} |\n| painter: patch, width, blocks, heads | {}, {}, {}, {} |\n\
                 | token merging | {} |\n",
                gene.width, gene.blocks, gene.heads, dit.patch, dit.d, dit.blocks, dit.heads, dit.token_merging.ratio
            );
            (text, sizes)
        }
        (model, _) => (format!("# {} for {genes} genes\n\n", model.name()), String::new()),
    }
}

/// A table of the report's metrics, model and baselines, or a sentence why there is none.
fn metrics(card: &Card<'_>) -> String {
    let selection = card.run.best.map_or_else(String::new, |best| {
        let what = match card.run.config.task {
            TaskConfig::Completion(_) => "MSE over hidden entries",
            _ => "loss",
        };
        format!("Lowest validation {what}: {} after {} batches.\n\n", best.value, best.global_step)
    });
    let Some(model) = card.report.and_then(|r| r.get("model")).and_then(Value::as_object) else {
        return format!("{selection}Not evaluated yet: `syncytia evaluate RUN` measures it beside simple fills.\n");
    };
    let report = card.report.unwrap_or(&Value::Null);
    let said = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or("not stated").to_owned();
    let mut names: Vec<&String> = model.keys().collect();
    names.sort();
    let row = |name: &str, metrics: &Value| {
        let value = |m: &&String| metrics[m.as_str()]["value"].as_f64().map_or("–".to_owned(), |v| format!("{v:.4}"));
        format!("| {name} | {} |\n", names.iter().map(value).collect::<Vec<_>>().join(" | "))
    };
    let head: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
    let mut text = format!(
        "{selection}From the report of the run (split {}, protocol {}), which may stand for another of its checkpoints:\n\n\
         | | {} |\n|---|{}\n",
        said("split"),
        said("protocol"),
        head.join(" | "),
        "---|".repeat(head.len())
    );
    text.push_str(&row("**this model**", &report["model"]));
    if let Some(baselines) = report.get("baselines").and_then(Value::as_object) {
        let mut baselines: Vec<_> = baselines.iter().collect();
        baselines.sort_by_key(|(name, _)| *name);
        for (name, metrics) in baselines {
            text.push_str(&row(name, metrics));
        }
    }
    text
}
