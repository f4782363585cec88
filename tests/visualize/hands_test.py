import numpy as np

from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing, merge_meshes


def test_merge_meshes_keeps_triangles_and_colours():
    rng = np.random.default_rng(0)
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    hands = [
        HandDrawing(np.zeros((21, 2)), rng.normal(size=(n, 3)), faces, HAND_COLOURS[i])
        for i, n in enumerate((4, 6))
    ]
    verts_m, all_faces, colours = merge_meshes(hands)
    triangles = [hand.verts_cam_m[hand.faces] for hand in hands]
    np.testing.assert_array_equal(verts_m[all_faces], np.concatenate(triangles))
    np.testing.assert_array_equal(colours, np.repeat(np.array(HAND_COLOURS[:2]), 2, axis=0))
