#include "rpc/options.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <istream>
#include <memory>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/edit_distance.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

// A flat map from option names to scalars or lists of them.
class YamlConfig final : public CLI::Config {
 public:
  explicit YamlConfig(const CLI::App& app) : app_(app) {}

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> found;
    try {
      const YAML::Node root = YAML::Load(input);
      if (root.IsNull()) return found;
      if (!root.IsMap()) throw CLI::ConversionError("the configuration file is not a map of option names to values");
      for (const auto& entry : root) found.push_back(ToItem(entry.first.as<std::string>(), entry.second));
    } catch (const YAML::Exception& error) {
      throw CLI::ConversionError(absl::StrCat("the configuration file is not YAML: ", error.what()));
    }
    return found;
  }

 private:
  CLI::ConfigItem ToItem(const std::string& name, const YAML::Node& value) const {
    CheckKnown(name);
    CLI::ConfigItem item;
    item.name = name;
    if (value.IsScalar()) {
      item.inputs.push_back(value.as<std::string>());
    } else if (value.IsSequence()) {
      for (const auto& element : value) item.inputs.push_back(element.as<std::string>());
    } else {
      throw CLI::ConversionError(absl::StrCat("configuration file: ", name, " is neither a value nor a list of them"));
    }
    return item;
  }

  void CheckKnown(const std::string& name) const {
    std::string nearest;
    for (const CLI::Option* option : app_.get_options()) {
      for (const std::string& known : option->get_lnames()) {
        if (known == name && known != "config" && known != "help" && known != "version") return;
        if (nearest.empty() || EditDistance(known, name) < EditDistance(nearest, name)) nearest = known;
      }
    }
    throw CLI::ConfigError(absl::StrCat("configuration file: no option is called \"", name, "\"; the nearest is \"", nearest, "\""),
                           CLI::ExitCodes::ConfigError);
  }

  const CLI::App& app_;
};

absl::StatusOr<std::string> ReadToken(const std::string& file) {
  if (!file.empty()) {
    ASSIGN_OR_RETURN(const std::string token, ReadFile(file));
    const std::string stripped(absl::StripAsciiWhitespace(token));
    if (stripped.empty()) return absl::InvalidArgumentError(absl::StrCat("token file ", file, " is empty"));
    return stripped;
  }
  const char* token = std::getenv("LOCKSTEP_TOKEN");
  return std::string(token == nullptr ? "" : token);
}

absl::StatusOr<std::string> ReadOptional(const std::string& file) {
  if (file.empty()) return std::string();
  return ReadFile(file);
}

}  // namespace

void AddConfigFile(CLI::App& app) {
  app.set_config("--config", "", "YAML file with any of these options, by their long names")->option_text("FILE");
  app.config_formatter(std::make_shared<YamlConfig>(app));
}

void AddClientFlags(CLI::App& app, ClientFlags& flags) {
  app.add_option("--coordinator", flags.coordinator, "HOST:PORT of the coordinator")->envname("LOCKSTEP_COORDINATOR");
  app.add_option("--token-file", flags.token_file, "File that holds the cluster's token (the token itself: LOCKSTEP_TOKEN)")
      ->envname("LOCKSTEP_TOKEN_FILE");
  app.add_option("--ca-certificate", flags.ca_certificate_file, "PEM of the authority that signed the coordinator's certificate: use TLS");
  app.add_option("--server-name", flags.server_name, "Name in the coordinator's certificate, if it is not the host");
}

absl::StatusOr<ChannelOptions> ReadChannelOptions(const ClientFlags& flags) {
  ChannelOptions options;
  ASSIGN_OR_RETURN(options.token, ReadToken(flags.token_file));
  ASSIGN_OR_RETURN(options.ca_certificate, ReadOptional(flags.ca_certificate_file));
  options.server_name = flags.server_name;
  return options;
}

void AddServerFlags(CLI::App& app, ServerFlags& flags) {
  app.add_option("--listen", flags.listen, "HOST:PORT to serve gRPC on; port 0 takes any free one")->capture_default_str();
  app.add_option("--token-file", flags.token_file,
                 "File that holds the token which every call must carry (the token itself: LOCKSTEP_TOKEN)")
      ->envname("LOCKSTEP_TOKEN_FILE");
  app.add_option("--tls-certificate", flags.tls_certificate_file, "PEM certificate: serve over TLS");
  app.add_option("--tls-key", flags.tls_key_file, "PEM private key of the certificate");
  app.add_flag("--insecure", flags.insecure, "Allow a listener beyond loopback without a token and TLS");
}

absl::StatusOr<ServerOptions> ReadServerOptions(const ServerFlags& flags) {
  ServerOptions options;
  options.listen = flags.listen;
  options.insecure = flags.insecure;
  ASSIGN_OR_RETURN(options.token, ReadToken(flags.token_file));
  ASSIGN_OR_RETURN(options.tls_certificate, ReadOptional(flags.tls_certificate_file));
  ASSIGN_OR_RETURN(options.tls_key, ReadOptional(flags.tls_key_file));
  return options;
}

}  // namespace lockstep
