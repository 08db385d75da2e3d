// Evaluates losses and metrics, for tests/parity/loss_test.py. JSON in, JSON out: each case's compile_config is read as an archive's is.
//
//   {"cases": [{"compile": …, "classes": 3, "outputs": [[…] …], "logits": [[…] …] or null, "labels": […], "float64": false} …]}
//   {"cases": [{"loss": 0.1, "gradient": [[…] …], "metrics": {"accuracy": 0.5}} or {"error": "…"} …]}

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <iostream>

#include "model/training/compile_config.h"
#include "model/training/loss.h"
#include "model/training/metric.h"

namespace lockstep {
namespace {

at::Tensor Matrix(const Json& rows, at::ScalarType type) {
  std::vector<double> flat;
  for (const Json& row : rows) {
    for (const Json& value : row) flat.push_back(value.get<double>());
  }
  const auto n = static_cast<int64_t>(rows.size());
  return at::tensor(flat, at::TensorOptions().dtype(at::kDouble)).view({n, -1}).to(type);
}

Json Run(const Json& one) {
  const at::ScalarType type = one["float64"].get<bool>() ? at::kDouble : at::kFloat;
  const at::Tensor given = Matrix(one["outputs"], type);
  const at::Tensor leaf = (one["activation"].is_null() ? given : Matrix(one["logits"], type)).set_requires_grad(true);
  at::Tensor output = leaf, logits;
  if (one["activation"] == "softmax") output = leaf.softmax(1), logits = leaf;
  if (one["activation"] == "sigmoid") output = leaf.sigmoid(), logits = leaf;
  const OutputShape shape{output.size(1), 2, one["classes"].get<int64_t>()};
  const auto recipe = ReadRecipe(one["compile"], {}, shape);
  if (!recipe.ok()) return {{"error", std::string(recipe.status().message())}};
  const at::Tensor labels = at::tensor(one["labels"].get<std::vector<int64_t>>(), at::TensorOptions().dtype(at::kLong));
  const Loss loss(recipe->loss);
  const at::Tensor total = loss.PerSample(output, logits, labels).sum() / loss.Divisor(labels.size(0));
  torch::autograd::backward({total}, {});
  Json result = {{"loss", total.item<double>()}, {"metrics", Json::object()}};
  const at::Tensor gradient = leaf.grad().to(at::kDouble).contiguous();
  result["gradient"] = std::vector<double>(gradient.data_ptr<double>(), gradient.data_ptr<double>() + gradient.numel());
  for (const MetricConfig& config : recipe->metrics) {
    const MetricSum sum = Metric(config).Evaluate(output.detach(), logits.defined() ? logits.detach() : logits, labels);
    result["metrics"][config.name] = sum.sum / sum.count;
  }
  return result;
}

int Main() {
  const Json request = Json::parse(std::cin);
  Json cases = Json::array();
  for (const Json& one : request["cases"]) cases.push_back(Run(one));
  std::cout << Json{{"cases", cases}};
  return 0;
}

}  // namespace
}  // namespace lockstep

int main() { return lockstep::Main(); }
