import numpy as np

from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing, joined


def test_joined_hands_keep_their_triangles_and_colours():
    rng = np.random.default_rng(0)
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    hands = [
        HandDrawing(np.zeros((21, 2)), rng.normal(size=(n, 3)), faces, HAND_COLOURS[i])
        for i, n in enumerate((4, 6))
    ]
    verts_m, all_faces, colours = joined(hands)
    triangles = [hand.verts_cam_m[hand.faces] for hand in hands]
    np.testing.assert_array_equal(verts_m[all_faces], np.concatenate(triangles))
    np.testing.assert_array_equal(colours, np.repeat(np.array(HAND_COLOURS[:2]), 2, axis=0))
