//! Where gradients come from, and when.

use super::*;
use crate::model::spatia::context::RegionInput;

/// Σ of everything the model can make, so that every parameter has a part in it.
fn everything(model: &Spatia, training: Option<&Training>) -> Tensor<1> {
    let device = cpu().autodiff();
    let (mut genes, mut image) = (
        gene_input(&[cell(5, 2), cell(3, 4)], 5),
        pictures(2, Some(Kept::draw(DrawKey::new(1, Purpose::PatchMask), &[[0; 3], [1, 0, 0]], 16, 0.75))),
    );
    genes.values = Tensor::from_data(genes.values.into_data(), &device);
    genes.depth = Tensor::from_data(genes.depth.into_data(), &device);
    genes.genes = Tensor::from_data(genes.genes.into_data(), &device);
    image.pixels = Tensor::from_data(image.pixels.into_data(), &device);
    let depth = genes.depth.clone();
    let out = model.forward(&CellInput { genes: Some(genes), image: Some(image) }, training);
    let genes = out.genes.as_ref().unwrap();
    let squared = |x: Tensor<2>| (x.clone() * x).mean();
    let context = |salt| ContextInput {
        members: Tensor::from_data(TensorData::new(noise(2 * 3 * 32, salt), [2, 3, 32]), &device),
        offsets_um: Tensor::from_data(TensorData::new(noise(2 * 3 * 2, salt + 1), [2, 3, 2]), &device),
        padding: None,
        hidden: Some(Tensor::from_data(TensorData::new(vec![true, false, false, false, true, false], [2, 3]), &device)),
        region: None,
    };
    let vectors = Tensor::from_data(TensorData::new(noise(2 * 32, 9), [2, 32]), &device);
    let region = Some(RegionInput { vectors, absent: None });
    let niche = model.niche(&ContextInput { region, ..context(5) }, training);
    let tissue = model.tissue(&context(7), training);
    let z = model.fuse_levels(out.z_cell.clone(), Some(niche.z), Some(tissue.z), training);
    let mut terms = vec![squared(z.clone() * 0.7 + 0.3)];
    for seen in
        [model.expression(genes, depth.clone(), training), model.expression_of_vector(z, genes, depth, training)]
    {
        terms.extend([squared(seen.mean), squared(seen.dispersion), squared(seen.dropout_logit)]);
    }
    terms.push(squared(model.class_logits(genes, training)[1].clone().unwrap()));
    let (a, b) = model.contrast_vectors(&out, training).unwrap();
    terms.push((a * b).mean() * model.contrast.as_ref().unwrap().scale());
    let painted = model.paint_hidden(out.image.as_ref().unwrap(), Some(&out.z_cell), training);
    for prediction in [painted.prediction, painted.of_vector.unwrap()] {
        let error = prediction - painted.patches.clone();
        terms.push((error.clone() * error).mean());
    }
    Tensor::cat(terms, 0).sum()
}

/// Gradients by their place, told on the way or taken at the end.
fn gradients(config: &SpatiaConfig, told: bool) -> (Vec<Option<Vec<f32>>>, usize) {
    use std::sync::{Arc, Mutex};
    let built = model(config);
    let flat = params::to_flat(&built);
    let model = params::from_flat(built, &flat, &cpu().autodiff());
    let ids = params::ids(&model);
    let found: Arc<Mutex<Vec<Option<Vec<f32>>>>> = Arc::new(Mutex::new(vec![None; ids.len()]));
    let put = {
        let found = Arc::clone(&found);
        move |place: usize, gradient: Tensor<1>| {
            let before = found.lock().unwrap()[place].replace(gradient.into_data().try_to_vec().unwrap());
            assert!(before.is_none(), "the gradient of parameter {place} is told twice");
        }
    };
    let training = Training::new(3, 0, 0);
    let training = match told {
        true => training.with_listener(crate::tensor::Listener::new(put.clone()), ids),
        false => training,
    };
    let mut left = everything(&model, Some(&training)).backward();
    let on_the_way = found.lock().unwrap().iter().flatten().count();
    params::each_gradient(&model, &mut left, &mut |place, gradient| put(place, gradient));
    let found = found.lock().unwrap().clone();
    (found, on_the_way)
}

#[test]
fn every_parameter_learns_and_is_told_once_with_the_gradient_of_plain_backward() {
    let (told, on_the_way) = gradients(&full(), true);
    let (plain, none) = gradients(&full(), false);
    let specs = params::specs(&model(&full()));
    for ((spec, told), plain) in specs.iter().zip(&told).zip(&plain) {
        let gradient = plain.as_ref().unwrap_or_else(|| panic!("{} has no gradient", spec.path));
        assert!(gradient.iter().any(|g| *g != 0.0) && gradient.iter().all(|g| g.is_finite()), "{}", spec.path);
        assert!(told.as_ref() == Some(gradient), "{}: other bits when told", spec.path);
    }
    assert_eq!(none, 0);
    // Late are single tokens, the gene table, the temperature, and first maps of data: nothing stands before them.
    let late = ["table", "extra", "cls", "mask_token", "log_scale", "query", "masked"];
    let of_data = ["value.linear1", "depth.linear1", "image_encoder.patch", "context.position", "niche.image"];
    let is_late =
        |path: &str| late.contains(&path.rsplit('.').next().unwrap()) || of_data.iter().any(|name| path.contains(name));
    assert_eq!(on_the_way, specs.iter().filter(|spec| !is_late(&spec.path)).count());
}
