import numpy as np
import pytest

from m3dhmr_jax.convert.names import MOBRECON, RESNET, their_name, to_our_layout


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("backbone/stem/conv1/conv/kernel", "conv1.weight"),
        ("backbone/stem/conv1/norm/scale", "bn1.weight"),
        ("backbone/stack1/stages/0/layers/1/conv2/norm/var", "layer1.1.bn2.running_var"),
        ("backbone/stack2/stages/0/layers/1/conv2/norm/var", "layer1.1.bn2.running_var"),
        (
            "backbone/stack2/stages/3/layers/0/downsample/conv/kernel",
            "layer4.0.downsample.0.weight",
        ),
        ("backbone/stack1/stages/3/layers/0/downsample/norm/bias", "layer4.0.downsample.1.bias"),
    ],
)
def test_their_name_in_resnet(ours, theirs):
    assert their_name(ours, RESNET) == theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("backbone/stem/conv1/conv/kernel", "backbone.pre_layer.0.0.weight"),
        (
            "backbone/stem/block/depthwise/0/norm/mean",
            "backbone.pre_layer.1.conv3x3.0.1.running_mean",
        ),
        ("backbone/stem/space_to_depth/norm/scale", "backbone.thrink.1.weight"),
        ("backbone/merge/conv/kernel", "backbone.thrink2.0.weight"),
        (
            "backbone/stack2/bottom/1/blocks/0/pointwise/conv/kernel",
            "backbone.dense_stack2.dense5.conv1.conv1x1.0.weight",
        ),
        (
            "backbone/stack1/up/2/layers/1/depthwise/1/conv/kernel",
            "backbone.dense_stack1.thrink3.1.conv3x3.1.0.weight",
        ),
        (
            "backbone/stack1/up/0/layers/2/fc2/linear/kernel",
            "backbone.dense_stack1.senet4.fc2.0.weight",
        ),
        ("backbone/encoding_conv/kernel", "backbone.mid_proj.0.weight"),
        ("landmark_head/hidden2/kernel", "backbone.uv_reg.1.0.weight"),
        ("decoder/lifting_matrix", "decoder3d.upsample"),
        ("decoder/layers/3/depthwise", "decoder3d.de_layer.3.conv.spatial_layer.weight"),
        ("decoder/layers/0/kernel", "decoder3d.de_layer.0.conv.layer.weight"),
        ("decoder/head/pointwise", "decoder3d.head.channel_layer.weight"),
        ("decoder/head/bias", "decoder3d.head.layer.bias"),
    ],
)
def test_their_name_in_mobrecon(ours, theirs):
    assert their_name(ours, MOBRECON) == theirs


def test_to_our_layout_transposes():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(5, 4, 3, 2))
    np.testing.assert_array_equal(
        to_our_layout(image, "conv/kernel", (3, 2, 4, 5))[2, 1, 3], image[:, 3, 2, 1]
    )
    dense = rng.normal(size=(5, 4))
    np.testing.assert_array_equal(to_our_layout(dense, "fc/kernel", (4, 5)), dense.T)
    np.testing.assert_array_equal(to_our_layout(dense, "decoder/lifting_matrix", (5, 4)), dense)
    square = rng.normal(size=(6, 1, 3, 3))
    depthwise = to_our_layout(square, "layers/0/depthwise", (9, 6))
    np.testing.assert_array_equal(depthwise[5], square[:, 0, 1, 2])
    spiral = rng.normal(size=(5, 9 * 4))
    kernel = to_our_layout(spiral, "layers/0/kernel", (9, 4, 5))
    np.testing.assert_array_equal(kernel[7, 2], spiral[:, 7 * 4 + 2])


def test_to_our_layout_keeps_the_shape_of_what_does_not_fit():
    assert to_our_layout(np.zeros((5, 36)), "layers/0/kernel", (9, 5, 5)).shape == (36, 5)
    assert to_our_layout(np.zeros((5, 36)), "layers/0/kernel", (12, 4, 5)).shape == (36, 5)
    assert to_our_layout(np.zeros(7), "norm/scale", (8,)).shape == (7,)
