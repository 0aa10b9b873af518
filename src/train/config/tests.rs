use super::*;

#[test]
fn a_lanes_forward_is_keyed_and_computed_as_the_config_says() {
    let text = "max_steps = 1\nlanes = 4\nmicro_batch = 8\nseed = 1\n";
    let plain: LoopConfig = toml::from_str(text).unwrap();
    let training = plain.training(7, 3);
    assert_eq!((training.global_step(), training.first_slot()), (7, 24));
    assert!(!training.is_narrow() && !training.recomputes_blocks());
    for (key, narrow, blocks) in [
        ("recompute = \"blocks\"", false, true),
        ("recompute = \"cheap\"", false, false),
        ("products = \"bf16\"", true, false),
    ] {
        let other: LoopConfig = toml::from_str(&format!("{text}{key}\n")).unwrap();
        let training = other.training(0, 0);
        assert_eq!((training.is_narrow(), training.recomputes_blocks()), (narrow, blocks), "{key}");
    }
}
