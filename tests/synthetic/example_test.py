from m3dhmr_jax.synthetic import example


def test_example_rng_differs_by_seed_split_index_and_stream():
    draws = [example.example_rng(seed, "training", 0, 0).random() for seed in (0, 1)]
    draws += [example.example_rng(0, "training", 0, 1).random()]
    draws += [example.example_rng(0, "evaluation", 0, 0).random()]
    draws += [example.example_rng(0, "training", 1, 0).random()]
    assert len(set(draws)) == 5
