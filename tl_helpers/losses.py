"""The losses that training minimises, as Keras losses that a saved model brings back."""

import keras
from keras import ops


def cross_entropy(label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Cross-entropy of integer labels (n,) and logits (n, classes), smoothed if asked (Szegedy et al., 2016)."""
    if label_smoothing:
        return SmoothedCrossEntropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable("tl_helpers")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of integer labels (n,) and logits (n, classes), a share of the target spread over all classes."""

    def __init__(self, label_smoothing: float, name: str = "smoothed_cross_entropy", **options):
        super().__init__(name=name, **options)
        self.label_smoothing = label_smoothing

    def call(self, labels, logits):
        one_hot = ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), ops.shape(logits)[-1])
        return keras.losses.categorical_crossentropy(
            one_hot, logits, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
