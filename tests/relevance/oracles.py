"""Slow, independent solutions of the regression, to hold the active-set method against."""

import numpy as np


def near_duplicate_features(*, num_images, num_bases, num_classes, noise, seed):
    """Responses (images, 3 * bases) of unit length in which each feature has two near copies."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    features = rng.gamma(1.0, size=(num_images, num_bases)) * rng.gamma(0.5, size=num_bases)
    features[:, : 2 * num_classes] *= 0.2
    for label in range(num_classes):
        features[labels == label, 2 * label : 2 * label + 2] += 0.5
    copies = [features + noise * rng.gamma(1.0, size=features.shape) for _ in range(2)]
    responses = np.concatenate([features, *copies], axis=1)
    responses /= np.linalg.norm(responses, axis=1, keepdims=True)
    return responses, np.eye(num_classes)[labels]


def simplex_projection(vector, radius):
    """The nearest point of {w >= 0, sum w <= radius}."""
    clipped = np.maximum(vector, 0)
    if clipped.sum() <= radius:
        return clipped
    descending = np.sort(vector)[::-1]
    excess = (np.cumsum(descending) - radius) / np.arange(1, len(vector) + 1)
    return np.maximum(vector - excess[np.flatnonzero(descending > excess)[-1]], 0)


def projected_gradient(gram, linear, *, mu, nonnegative, num_steps):
    """Accelerated projected gradient for w^T G w - 2 b^T w on the L1 ball (or its part w >= 0)."""

    def project(vector):
        if nonnegative:
            return simplex_projection(vector, mu)
        return np.sign(vector) * simplex_projection(np.abs(vector), mu)

    step = 1 / np.linalg.eigvalsh(gram)[-1]
    weights = ahead = np.zeros_like(linear)
    momentum = 1.0
    for _ in range(num_steps):
        new = project(ahead - step * (gram @ ahead - linear))
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / next_momentum * (new - weights)
        weights, momentum = new, next_momentum
    return weights


def objective(gram, linear, weights):
    return weights @ gram @ weights - 2 * linear @ weights


def duality_gap(gram, linear, weights, *, mu, nonnegative):
    """<grad, w - v> at the vertex v of the feasible set that lowers the linear model most."""
    gradient = 2 * (gram @ weights - linear)
    vertices = np.concatenate([np.zeros((1, len(linear))), mu * np.eye(len(linear))])
    if not nonnegative:
        vertices = np.concatenate([vertices, -vertices])
    return gradient @ weights - np.min(vertices @ gradient)
