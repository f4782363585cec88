import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.coarsening import coarsen
from m3dhmr_jax.mesh.geometry import area_vectors, closest_barycentric
from m3dhmr_jax.mesh.spirals import ordered_one_rings

SIZES = (389, 195, 98, 49)


def chain(vertices, faces):
    """(finer vertices, finer faces, step) for each level in turn."""
    steps = []
    for n_vertices in SIZES:
        step = coarsen(vertices, faces, n_vertices)
        steps.append((vertices, faces, step))
        vertices, faces = vertices[step.kept], step.faces
    return steps


@pytest.fixture(scope="module")
def builtin():
    hand = load_builtin()
    return chain(hand.verts_m, hand.faces)


@pytest.fixture(scope="module")
def mano(reference):
    meshes = np.load(reference / "mesh_hierarchy.npz")
    return chain(meshes["vertices_0"], meshes["faces_0"])


def border_loop(faces):
    sides = {pair for a, b, c in faces.tolist() for pair in ((a, b), (b, c), (c, a))}
    following = {a: b for a, b in sides if (b, a) not in sides}
    loop = [min(following)]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    assert len(loop) == len(following), "more than one border"
    return loop


def check_surface(finer, finer_faces, step):
    ordered_one_rings(step.faces, len(step.kept))  # Raises unless it is an oriented manifold.
    edges = {frozenset(p) for a, b, c in step.faces.tolist() for p in ((a, b), (b, c), (c, a))}
    assert len(step.kept) - len(edges) + len(step.faces) == 1
    fine_border = border_loop(finer_faces)
    coarse_border = [step.kept[vertex] for vertex in border_loop(step.faces)]
    assert set(coarse_border) <= set(fine_border)
    assert (np.diff(step.kept) > 0).all()


def check_upsampling(finer, step, tolerance_m):
    assert step.up_weights.min() >= 0
    np.testing.assert_allclose(step.up_weights.sum(1), 1, atol=1e-6)
    coarse = finer[step.kept]
    upsampled = np.einsum("vk,vkx->vx", step.up_weights, coarse[step.up_indices])
    np.testing.assert_array_equal(upsampled[step.kept], coarse)
    assert np.linalg.norm(upsampled - finer, axis=1).max() < tolerance_m


@pytest.mark.long
@pytest.mark.parametrize("level", range(len(SIZES)))
def test_coarsen_builtin_hand_stays_an_oriented_disk(builtin, level):
    check_surface(*builtin[level])


@pytest.mark.long
@pytest.mark.parametrize("level", range(len(SIZES)))
def test_upsampling_reproduces_kept_vertices(builtin, level):
    finer, _, step = builtin[level]
    assert len(step.kept) == SIZES[level]
    check_upsampling(finer, step, tolerance_m=(0.002, 0.004, 0.008, 0.014)[level])


@pytest.mark.long
@pytest.mark.parity
@pytest.mark.parametrize("level", range(len(SIZES)))
def test_coarsen_mano_stays_an_oriented_disk(mano, level):
    check_surface(*mano[level])
    check_upsampling(mano[level][0], mano[level][2], (0.002, 0.004, 0.008, 0.014)[level])


@pytest.mark.long
def test_upsampling_finds_the_closest_points(builtin):
    finer, _, step = builtin[0]
    triangles = finer[step.kept][step.faces].astype(float)
    coarse = finer[step.kept]
    upsampled = np.einsum("vk,vkx->vx", step.up_weights, coarse[step.up_indices])
    distance = np.linalg.norm(upsampled - finer, axis=1)
    for vertex in range(0, len(finer), 7):
        weights = closest_barycentric(finer[vertex].astype(float), triangles)
        closest = np.einsum("fk,fkx->fx", weights, triangles)
        assert distance[vertex] <= np.linalg.norm(closest - finer[vertex], axis=1).min() + 1e-6


@pytest.mark.long
def test_coarse_normals_agree_with_fine_ones(builtin):
    finer, finer_faces, step = builtin[0]
    at_vertices = np.zeros_like(finer)
    np.add.at(at_vertices, finer_faces, area_vectors(finer[finer_faces])[:, None])
    corners = step.kept[step.faces]
    dots = (at_vertices[corners].sum(1) * area_vectors(finer[corners])).sum(1)
    assert (dots > 0).all()


@pytest.mark.long
def test_coarsest_level_keeps_every_finger(builtin):
    regions = load_builtin().regions
    for _, _, step in builtin:
        regions = regions[step.kept]
    assert np.bincount(regions, minlength=6).min() >= 3


@pytest.mark.long
def test_one_rings_fit_into_a_spiral_of_nine(builtin):
    for _, _, step in builtin:
        assert max(map(len, ordered_one_rings(step.faces, len(step.kept)))) <= 8


def strip(columns):
    """A strip one quad wide: every vertex lies on the border."""
    x, y = np.meshgrid(np.arange(columns), [0.0, 1.0])
    lower = np.arange(columns - 1)
    upper = lower + columns
    faces = np.concatenate(
        [np.stack([lower, lower + 1, upper], 1), np.stack([lower + 1, upper + 1, upper], 1)]
    )
    return np.stack([x, y, 0 * x], -1).reshape(-1, 3), faces


def tube(rings):
    """A three-sided tube with one closed end, too thin to lose a side; the open end is ring 0."""
    angles = np.arange(3) * 2 * np.pi / 3
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    vertices = np.concatenate([ring + np.array([0, 0, height]) for height in range(rings)])
    faces = []
    for low in range(0, 3 * (rings - 1), 3):
        for a, b in ((low, low + 1), (low + 1, low + 2), (low + 2, low)):
            faces += [(a, b, a + 3), (b, b + 3, a + 3)]
    return vertices, np.array([*faces, (3 * rings - 3, 3 * rings - 2, 3 * rings - 1)])


@pytest.mark.parametrize(
    ("surface", "n_vertices"), [(strip(12), 10), (strip(12), 5), (tube(9), 15), (tube(9), 5)]
)
def test_coarsen_preserves_topology_of_narrow_surfaces(surface, n_vertices):
    step = coarsen(*surface, n_vertices)
    assert len(step.kept) == n_vertices
    check_surface(*surface, step)


@pytest.mark.parametrize("n_vertices", [778, 2, 0])
def test_coarsen_rejects_impossible_size(n_vertices):
    hand = load_builtin()
    with pytest.raises(ValueError, match=f"n_vertices={n_vertices}"):
        coarsen(hand.verts_m, hand.faces, n_vertices)


def test_coarsen_rejects_a_surface_that_would_fold():
    vertices = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    with pytest.raises(UserError, match="n_vertices=3"):
        coarsen(vertices, faces, 3)
