"""The concept loss: closed form against double backward and finite differences, its invariances, its two directions."""

import pytest
import torch

from aaca.training.concept_loss import concept_loss, logit_gradients_at, prototype_gradients

B, D, C, K, P = 6, 10, 3, 4, 2
YES = torch.tensor([True, True])


def draw(seed=0):
    torch.manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(P, D, dtype=torch.float64), dim=1)
    return (
        torch.randn(B, D, dtype=torch.float64, requires_grad=True),
        torch.randn(C, K, D, dtype=torch.float64),
        torch.randint(0, C, (B,)),
        directions,
    )


def by_double_backward(a, prototypes, labels, directions):
    distance = (a[:, None] - prototypes[labels]).square().mean(dim=2).sum()
    (gradient,) = torch.autograd.grad(distance, a, create_graph=True)
    return gradient, torch.nn.functional.cosine_similarity(gradient[:, None], directions[None], dim=2).abs().mean()


def test_the_closed_form_is_the_double_backward():
    a, prototypes, labels, directions = draw()
    gradient, slow = by_double_backward(a, prototypes, labels, directions)
    quick = concept_loss(prototype_gradients(a, prototypes.mean(dim=1), labels, K), directions, YES)
    torch.testing.assert_close(prototype_gradients(a, prototypes.mean(dim=1), labels, K), gradient, rtol=0, atol=1e-14)
    torch.testing.assert_close(quick, slow, rtol=0, atol=1e-14)
    torch.testing.assert_close(*(torch.autograd.grad(loss, a)[0] for loss in (quick, slow)), rtol=0, atol=1e-14)


def test_central_differences_agree():
    a, prototypes, labels, directions = draw(1)

    def loss(values):
        return concept_loss(prototype_gradients(values, prototypes.mean(dim=1), labels, K), directions, YES)

    (gradient,) = torch.autograd.grad(loss(a), a)
    for row, column in ((0, 0), (3, 7), (5, 9)):
        step = torch.zeros_like(a)
        step[row, column] = 1e-6
        change = (loss(a + step) - loss(a - step)) / 2e-6
        assert float(change) == pytest.approx(float(gradient[row, column]), abs=1e-8)


@pytest.mark.parametrize("distance", ["abs_cos", "sq_cos", "sq_dot"])
@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_is_the_one_of_finite_differences(distance, masked):
    torch.manual_seed(3)
    gradients = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    desensitise = YES if distance == "sq_dot" else torch.tensor([True, False])
    mask = torch.rand(B, P) < 0.6 if masked else None
    weights = torch.tensor([0.3, 2.0], dtype=torch.float64) if masked else None
    directions = 3 * torch.randn(P, D, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda values: concept_loss(values, directions, desensitise, weights, mask, distance), (gradients,)
    )


def test_neither_scales_nor_doubled_prototypes_count():
    a, prototypes, labels, directions = draw(2)
    one = concept_loss(prototype_gradients(a, prototypes.mean(dim=1), labels, K), directions, YES)
    twice = prototype_gradients(a, torch.cat([prototypes, prototypes], dim=1).mean(dim=1), labels, 2 * K)
    for gradients, vectors in ((twice, directions), (7 * twice, directions), (twice, 3 * directions)):
        torch.testing.assert_close(concept_loss(gradients, vectors, YES), one)
    assert 0 <= float(one) <= 1


@pytest.mark.parametrize(("distance", "along"), [("abs_cos", 1.0), ("sq_cos", 1.0), ("sq_dot", 9.0)])
def test_orthogonal_is_nothing_and_parallel_is_all(distance, along):
    v = torch.eye(3)[:1]
    yes = torch.tensor([True])
    assert float(concept_loss(torch.tensor([[0.0, 2.0, 0.0]]), v, yes, distance=distance)) == 0
    assert float(concept_loss(torch.tensor([[-3.0, 0.0, 0.0]]), v, yes, distance=distance)) == pytest.approx(along)


def test_to_sensitise_is_the_other_direction():
    gradients, v = torch.randn(5, 4, requires_grad=True), torch.eye(4)[:1]
    less, more = (concept_loss(gradients, v, torch.tensor([way])) for way in (True, False))
    torch.testing.assert_close(less + more, torch.tensor(1.0))
    torch.testing.assert_close(
        *(sign * torch.autograd.grad(loss, gradients)[0] for sign, loss in ((1, less), (-1, more)))
    )
    with pytest.raises(ValueError, match="sq_dot"):
        concept_loss(gradients, v, torch.tensor([False]), distance="sq_dot")


def test_weights_masks_and_images_that_point_nowhere():
    gradients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    v = torch.eye(2)
    assert float(concept_loss(gradients, v, YES)) == pytest.approx(0.5)  # the third points nowhere and is left out
    assert float(concept_loss(gradients, v, YES, weights=torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 8)
    first = torch.tensor([[True, False], [False, False], [True, True]])
    assert float(concept_loss(gradients, v, YES, mask=first)) == 1.0
    nothing = concept_loss(gradients, v, YES, mask=torch.zeros(3, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(nothing, gradients)
    assert float(nothing) == 0 and gradient.isfinite().all()
    (gradient,) = torch.autograd.grad(concept_loss(gradients, v, YES), gradients)
    assert gradient.isfinite().all()


def test_a_linear_head_s_logit_gradient_is_its_row_and_can_be_differentiated_again():
    torch.manual_seed(0)
    weight = torch.randn(C, D, requires_grad=True)
    a, labels = torch.randn(B, D, requires_grad=True), torch.randint(0, C, (B,))
    gradients = logit_gradients_at(a @ weight.T, a, torch.eye(C)[labels])
    torch.testing.assert_close(gradients, weight[labels])
    v = torch.eye(D)[:1]
    loss = concept_loss(gradients, v, torch.tensor([True]))
    (slope,) = torch.autograd.grad(loss, weight)
    assert slope.abs().sum() > 0  # the concept loss of logits reaches the head; that of prototypes does not
