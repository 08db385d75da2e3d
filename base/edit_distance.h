#pragma once
// How far two words are apart. Thread-safe: no state.

#include <cstddef>
#include <string_view>

namespace lockstep {

// Insertions, deletions, substitutions and swaps of neighbours that turn one into the other (optimal string alignment).
size_t EditDistance(std::string_view a, std::string_view b);

}  // namespace lockstep
