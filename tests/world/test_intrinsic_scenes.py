"""Procedural scenes: the image is albedo times shading to the bit, and each Δ changes what it says, and that alone."""

from dataclasses import replace

import numpy as np
import pytest

from aaca.world.intrinsic import (
    BRIGHTEST,
    DARKEST,
    SHAPES,
    IntrinsicScene,
    delta_albedo,
    delta_light,
    draw_scenes,
    normals,
    paint,
    render,
    render_all,
    shade,
)

SIZE = 24


@pytest.fixture(scope="module")
def scenes():
    return render_all(draw_scenes(40, 0, "train"), SIZE)


def test_the_image_is_albedo_times_shading_exactly(scenes):
    assert np.array_equal(scenes.image, scenes.albedo * scenes.shading)
    assert scenes.image.shape == (40, 3, SIZE, SIZE) and scenes.shading.shape == (40, 1, SIZE, SIZE)
    for values in (scenes.image, scenes.albedo, scenes.shading):
        assert values.dtype == np.float32 and values.min() > 0 and values.max() <= 1


def test_albedo_is_piecewise_constant_and_shading_grey(scenes):
    for albedo in scenes.albedo:
        colours = np.unique(albedo.reshape(3, -1), axis=1)
        assert 1 < colours.shape[1] <= 9 and colours.min() >= DARKEST and colours.max() <= BRIGHTEST


def test_a_scene_depends_on_its_key_alone():
    many = draw_scenes(12, 0, "train")
    assert draw_scenes(5, 0, "train") == many[:5] and len(set(many)) == 12
    assert not set(many) & set(draw_scenes(12, 0, "test")) and not set(many) & set(draw_scenes(12, 1, "train"))
    assert {scene.shape for scene in draw_scenes(60, 0, "train")} == set(SHAPES)
    again = render(many[3], SIZE)
    assert np.array_equal(again.image, render_all(many, SIZE).image[3])


def test_only_the_albedo_changes_in_delta_a_and_only_the_light_in_delta_i():
    for split in ("train", "test"):
        by_albedo, by_light = (make(5, 4, SIZE, 0, split) for make in (delta_albedo, delta_light))
        assert by_albedo.image.shape == by_light.image.shape == (5, 4, 3, SIZE, SIZE)
        for fixed, changing in ((by_albedo.shading, by_albedo.albedo), (by_light.albedo, by_light.shading)):
            for group in range(5):
                assert all(np.array_equal(fixed[group, 0], member) for member in fixed[group])
                assert len({member.tobytes() for member in changing[group]}) == 4
    assert not np.array_equal(delta_light(2, 4, SIZE, 0, "train").image, delta_light(2, 4, SIZE, 0, "test").image)


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_unit_and_face_the_viewer(shape):
    for seed in range(6):
        normal, covered = normals(shape, seed, 40)
        np.testing.assert_allclose(np.linalg.norm(normal[covered], axis=1), 1, atol=1e-9)
        assert normal[..., 2].min() >= -1e-9
        assert 0.1 < covered.mean() <= 1 and (covered.all() == (shape == "bumps"))
        np.testing.assert_array_equal(normal[~covered], np.broadcast_to([0, 0, 1], normal[~covered].shape))


def test_the_normals_of_a_sphere_are_those_of_its_place():
    normal, covered = normals("sphere", 1, 60)
    rows, columns = np.nonzero(covered)
    slope = np.polyfit(columns, normal[covered][:, 0], 1)[0]  # n_x is linear in x, n_y in y, at one pace: 1 / radius
    np.testing.assert_allclose(normal[covered][:, 0], slope * (columns - columns.mean()), atol=1e-2)
    np.testing.assert_allclose(normal[covered][:, 1], slope * (rows - rows.mean()), atol=1e-2)


def test_a_box_shows_three_faces_at_right_angles_and_bumps_have_the_slopes_of_their_height():
    normal, covered = normals("box", 3, 60)
    faces = np.unique(normal[covered].round(9), axis=0)
    assert len(faces) == 3
    np.testing.assert_allclose(faces @ faces.T, np.eye(3), atol=1e-8)
    normal, _ = normals("bumps", 0, 200)
    slope_x, slope_y = (-normal[..., axis] / normal[..., 2] for axis in (0, 1))
    # of a height, ∂/∂y of the slope along x is ∂/∂x of that along y
    mixed = np.gradient(slope_x, axis=0), np.gradient(slope_y, axis=1)
    np.testing.assert_allclose(mixed[0][5:-5, 5:-5], mixed[1][5:-5, 5:-5], atol=5e-4)


def test_shading_is_ambient_plus_lambert():
    flat = shade(np.array([[[0.0, 0.0, 1.0]]]), 5)
    towards = np.random.default_rng(0).standard_normal((4000, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    found = shade(towards[None], 5)[0]
    ambient = found.min()
    assert 0.1 <= ambient <= 0.3 and ambient < flat[0, 0] <= 1 and found.max() <= 1
    lit = found > ambient + 1e-9
    assert 0.45 < lit.mean() < 0.55  # half of all directions
    coefficients, *_ = np.linalg.lstsq(towards[lit], found[lit] - ambient, rcond=None)
    np.testing.assert_allclose(towards[lit] @ coefficients, found[lit] - ambient, atol=1e-9)
    assert 0.45 <= np.linalg.norm(coefficients) <= 0.7 and coefficients[2] > 0


def test_seeds_move_one_part_each():
    scene = IntrinsicScene("sphere", 1, 2, 3)
    base = render(scene, SIZE)
    painted, lit = render(replace(scene, albedo_seed=9), SIZE), render(replace(scene, light_seed=9), SIZE)
    assert np.array_equal(base.shading, painted.shading) and not np.array_equal(base.albedo, painted.albedo)
    assert np.array_equal(base.albedo, lit.albedo) and not np.array_equal(base.shading, lit.shading)
    covered = normals("sphere", 1, SIZE)[1]
    assert len(np.unique(paint(covered, 2)[:, ~covered], axis=1).T) == 1  # one colour around the object
