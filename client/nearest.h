#pragma once
// What a person who mistyped a word most likely meant. Thread-safe: no state.

#include <string>
#include <string_view>
#include <vector>

namespace lockstep {

// "did you mean 'image'?" for the candidate with the fewest edits (the first of equals), if they are at most half of the
// longer word; otherwise "known are: a, b, c". REQUIRES: candidates are not empty.
std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace lockstep
