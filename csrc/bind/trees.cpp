// Walks nested lists, tuples and dicts along the nodes of a Tree (_trees.py), as every step does with its parameters
// and its gradients. Takes plain ones that fit; what to think of others is _trees.py's to say.
#include "python.h"

namespace flatstep {

namespace {

// structure[key], or its i-th; null where it has none.
nb::object part(nb::handle structure, nb::handle key, size_t i, bool by_key) {
  PyObject* const found =
      by_key ? PyObject_GetItem(structure.ptr(), key.ptr()) : PySequence_GetItem(structure.ptr(), Py_ssize_t(i));
  if (!found) {
    if (!PyErr_ExceptionMatches(PyExc_LookupError)) throw nb::python_error();
    PyErr_Clear();
  }
  return nb::steal(found);
}

// Calls visit(leaf) in the order of the nodes. False where the structure does not fit, or as soon as a visit says so.
template <class Visit>
bool walk(nb::handle node, nb::handle structure, const Visit& visit) {
  if (node.is_none()) return visit(structure);
  const nb::tuple fields = nb::borrow<nb::tuple>(node), keys = fields[1], children = fields[2];
  const bool is_dict = fields[0].is(Py_True);
  const bool is_plain = is_dict ? PyDict_CheckExact(structure.ptr())
                                : PyList_CheckExact(structure.ptr()) || PyTuple_CheckExact(structure.ptr());
  if (!is_plain || nb::len(structure) != keys.size()) return false;
  for (size_t i = 0; i < keys.size(); ++i) {
    const nb::object child = part(structure, keys[i], i, is_dict);
    if (!child.is_valid() || !walk(children[i], child, visit)) return false;
  }
  return true;
}

// The leaves of a structure that fits; None for others.
nb::object match(nb::handle node, nb::handle structure) {
  nb::list leaves;
  const auto take = [&](nb::handle leaf) {
    leaves.append(leaf);
    return true;
  };
  return walk(node, structure, take) ? nb::object(leaves) : nb::none();
}

// Whether a structure fits and holds these very leaves.
bool holds(nb::handle node, nb::handle structure, const nb::list& leaves) {
  size_t next = 0;
  return walk(node, structure, [&](nb::handle leaf) { return next < leaves.size() && leaf.is(leaves[next++]); });
}

// `None in leaves` would ask arrays.
bool has_none(const nb::list& leaves) {
  for (nb::handle leaf : leaves) {
    if (leaf.is_none()) return true;
  }
  return false;
}

}  // namespace

void bind_trees(nb::module_& module) {
  const auto any = nb::arg().none();
  module.def(
      "match", &match, any, any,
      nb::sig("def match(node: tuple[typing.Any, ...] | None, structure: object, /) -> list[typing.Any] | None"));
  module.def("has_none", &has_none, nb::sig("def has_none(leaves: list[typing.Any], /) -> bool"));
  module.def("holds", &holds, any, any, nb::arg(),
             nb::sig("def holds(node: tuple[typing.Any, ...] | None, structure: object, leaves: list[typing.Any], /) "
                     "-> bool"));
}

}  // namespace flatstep
