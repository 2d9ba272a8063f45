"""Models of ``omni.replicator.core``: render products, annotators and writers, in front of :mod:`rtx`."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from tests.contracts.isaac.rtx import Product

HOST_ONLY_6 = ("GenericModelOutput", "StableIdMap")


class _HydraTexture:
    path = property(lambda self: self._product.path)

    def destroy(self):
        product = self._product
        if product.annotators or product.writers:
            # Attached annotators stay empty from here on: detach first.
            product.world.log_lines.append(("warn", f"{product.path} was destroyed with annotators attached"))
        product.destroyed, product.enabled = True, False
        if product in product.world.products:
            product.world.products.remove(product)

    class hydra_texture:
        def set_updates_enabled(self, enabled):
            self._owner._product.enabled = bool(enabled)


class _Create:
    def render_product(self, camera, resolution, force_new=False, name=None, render_vars=None):
        import omni.replicator.core as rep

        made = rep.HydraTexture.__new__(rep.HydraTexture)
        made._product = Product(self._world, str(camera), resolution, name)
        return made


class _AnnotatorRegistry:
    @classmethod
    def get_annotator(cls, name, init_params=None, render_product_idxs=None, device=None, do_array_copy=True):
        import omni.replicator.core as rep

        world = cls._world
        if name not in world.annotator_names:
            raise ValueError(f"the annotator registry has no {name}")
        if world.major >= 6 and name in HOST_ONLY_6 and device == "cuda":
            device = "cpu"  # a source on the host without a copy gives a host array, and says nothing
        made = rep.Annotator.__new__(rep.Annotator)
        made._world, made._name, made._device, made._asked = world, name, device or "cpu", device
        made._copies_arrays, made._inputs, made._product, made._copies = (
            do_array_copy,
            dict(init_params or {}),
            None,
            [],
        )
        return made


class _Annotator:
    def initialize(self, **kwargs):
        self._inputs.update(kwargs)

    def attach(self, render_products):
        products = render_products if isinstance(render_products, (list, tuple)) else [render_products]
        if len(products) > 1:
            raise NotImplementedError("an annotator has one render product")
        self._product = _product(self._world, products[0])
        self._product.annotators.append(self)

    def detach(self, render_products=None):
        if self._product is not None and self in self._product.annotators:
            self._product.annotators.remove(self)
        self._product = None

    def get_data(self, device=None, do_array_copy=False, use_legacy_structure=True):
        if self._product is None or self._product.destroyed:
            import warp as wp

            return wp.empty(0, dtype=wp.uint8, device="cpu")
        return self._product.read(self)


class _Writer:
    """Base class of users' writers; what is attached is a deep copy of what was made."""

    def attach(self, render_products):
        products = render_products if isinstance(render_products, (list, tuple)) else [render_products]
        for needed in ("annotators", "_annotators", "node_type_id", "_kwargs", "version"):
            if not hasattr(self, needed):
                raise AttributeError(f"'{type(self).__name__}' object has no attribute '{needed}'")
        self._attached = []
        for one in products:
            product = _product(self._world, one)
            copied = copy.deepcopy(self)
            for annotator in copied.annotators:
                annotator.attach([product.path])
            product.writers.append(copied)
            copied._product = product
            self._attached.append(copied)

    def detach(self):
        for copied in getattr(self, "_attached", ()):
            for annotator in copied.annotators:
                annotator.detach()
            if copied in copied._product.writers:
                copied._product.writers.remove(copied)
        self._attached = []

    def initialize(self, **kwargs):
        self.__init__(**kwargs)

    def _deliver(self, product):
        name = product.path.rsplit("/", 1)[-1]
        suffix = f"-{name}" if len(product.world.products) > 1 else ""
        data = {f"{annotator._name}{suffix}": product.read(annotator) for annotator in self.annotators}
        self.write(data)


class _WriterRegistry:
    @classmethod
    def register(cls, writer):
        cls._world.writers[writer.__name__] = writer

    @classmethod
    def get(cls, writer_name):
        return _new(cls._world.writers[writer_name])

    @classmethod
    def unregister_writer(cls, writer_name):
        cls._world.writers.pop(writer_name, None)


class _Writers:
    def get(self, writer_name):
        return _new(self._world.writers[writer_name])


class _Orchestrator:
    def wait_until_complete(self):
        self._world.events.append("replicator complete")

    def set_capture_on_play(self, value):
        self._world.settings["/omni/replicator/captureOnPlay"] = bool(value)

    def stop(self):
        self._world.events.append("replicator stop")

    def get_status(self):
        return SimpleNamespace(name="STOPPED")


def _new(kind: type) -> Any:
    return kind.__new__(kind)


def _product(world: Any, path: Any) -> Product:
    path = getattr(path, "path", path)
    found = next((product for product in world.products if product.path == path), None)
    if found is None:
        raise ValueError(f"there is no render product {path}")
    return found


MODELS: dict[str, Any] = {
    "omni.replicator.core": SimpleNamespace(
        HydraTexture=_HydraTexture,
        create=_Create,
        AnnotatorRegistry=_AnnotatorRegistry,
        Annotator=_Annotator,
        Writer=_Writer,
        WriterRegistry=_WriterRegistry,
        writers=_Writers,
        orchestrator=_Orchestrator,
    )
}
