// What must be true of the shards of one source before anybody reads samples of them. Every error names the
// config's key and the cure.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/data/data_config.h>
#include <ziggurat/data/dataset.h>

namespace ziggurat {

// The options of `data` that act on ends of documents and are on.
std::vector<const char*> options_on_documents(const DataConfig& config);

// Error(config) if one of them is on and there is no token that ends documents.
void check_has_eod(const DataConfig& config, const std::string& key, int64_t eod_id);

// The same, and looks at some documents of some shards: do they end with that token? Error(config) if more
// than a tenth don't; a few are documents that a file's end has cut.
void check_documents_end(const DataConfig& config, const std::string& key, const TokenStream& stream);

}  // namespace ziggurat
