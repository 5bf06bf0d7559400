// The page: tables and SVG drawn here, no script.
#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include <ziggurat/analyse/report.h>
#include <ziggurat/core/error.h>

namespace ziggurat::analyse {

namespace {

using Json = nlohmann::ordered_json;
using Numbers = std::vector<double>;

constexpr const char* kColours[] = {"#1f6feb", "#d1242f", "#1a7f37", "#9a6700",
                                    "#8250df", "#0a7ea4", "#bf3989", "#57606a"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

const char* colour(size_t i) { return kColours[i % std::size(kColours)]; }

struct Curve {
  std::string name;
  Numbers x, y;
};

// Curves over x with the y axis from 0 to a round number above the largest, names at the right.
std::string chart(const std::string& title, const std::string& x_name, const std::vector<Curve>& curves) {
  constexpr double kWidth = 420, kHeight = 150, kLeft = 46, kTop = 22;
  double low = INFINITY, high = -INFINITY, top = 0;
  for (const Curve& c : curves) {
    for (const double x : c.x) low = std::min(low, x), high = std::max(high, x);
    for (const double y : c.y) top = std::isfinite(y) ? std::max(top, y) : top;
  }
  if (!(high > low)) high = low + 1;
  if (top <= 0) top = 1;
  const double unit = std::pow(10, std::floor(std::log10(top)));
  top = std::ceil(top / unit * 2) / 2 * unit;
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 600 210\" width=\"600\" height=\"210\"><text x=\"{}\" y=\"13\" "
      "class=\"t\">{}</text>",
      kLeft, escaped(title));
  for (int i = 0; i <= 4; ++i) {
    const double y = kTop + kHeight * (1 - i / 4.0);
    svg += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" class=\"g\"/><text x=\"{}\" y=\"{:.1f}\" "
        "class=\"e\">{:.3g}</text>",
        kLeft, kLeft + kWidth, y, y, kLeft - 4, y + 4, top * i / 4);
  }
  svg += fmt::format(
      "<text x=\"{}\" y=\"{}\">{:.6g}</text><text x=\"{}\" y=\"{}\" class=\"e\">{:.6g}</text><text x=\"{}\" "
      "y=\"{}\" class=\"m\">{}</text>",
      kLeft, kTop + kHeight + 15, low, kLeft + kWidth, kTop + kHeight + 15, high, kLeft + kWidth / 2,
      kTop + kHeight + 15, escaped(x_name));
  for (size_t i = 0; i < curves.size(); ++i) {
    const Curve& c = curves[i];
    std::string points;
    for (size_t p = 0; p < c.x.size(); ++p) {
      if (!std::isfinite(c.y[p])) continue;
      const double x = kLeft + kWidth * (c.x[p] - low) / (high - low),
                   y = kTop + kHeight * (1 - c.y[p] / top);
      points += fmt::format("{:.1f},{:.1f} ", x, y);
      svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\" fill=\"{}\"/>", x, y, colour(i));
    }
    svg += fmt::format("<polyline points=\"{}\" stroke=\"{}\"/>", points, colour(i));
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" style=\"fill:{}\">{}</text>", kLeft + kWidth + 8,
                       kTop + 10 + 14 * static_cast<double>(i), colour(i), escaped(c.name));
  }
  return svg + "</svg>\n";
}

// Rows of cells, the darker the larger; every cell tells its value.
std::string heat_map(const std::string& title, const std::vector<std::string>& rows,
                     const std::vector<Numbers>& values) {
  double top = 0;
  size_t columns = 0;
  for (const Numbers& row : values) {
    columns = std::max(columns, row.size());
    for (const double v : row) top = std::max(top, v);
  }
  const double cell = std::clamp(560.0 / static_cast<double>(std::max<size_t>(columns, 1)), 4.0, 22.0);
  const double high = std::min(cell, 18.0), left = 110;
  std::string svg = fmt::format(
      "<svg width=\"{:.0f}\" height=\"{:.0f}\"><text x=\"0\" y=\"13\" class=\"t\">{}</text>",
      std::max(left + cell * static_cast<double>(columns) + 4, 7.5 * static_cast<double>(title.size())),
      22 + high * static_cast<double>(values.size()), escaped(title));
  for (size_t r = 0; r < values.size(); ++r) {
    const double y = 20 + high * static_cast<double>(r);
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" class=\"e\">{}</text>", left - 5, y + high * 0.75,
                       escaped(rows[r].size() > 16 ? "..." + rows[r].substr(rows[r].size() - 14) : rows[r]));
    for (size_t c = 0; c < values[r].size(); ++c) {
      const double shade = top > 0 ? values[r][c] / top : 0;
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"#1f6feb\" "
          "fill-opacity=\"{:.3f}\"><title>{}, expert {}: {:.4f}</title></rect>",
          left + cell * static_cast<double>(c), y, cell - 0.5, high - 0.5, shade, escaped(rows[r]), c,
          values[r][c]);
    }
  }
  return svg + "</svg>\n";
}

Numbers counting(size_t n, double step) {
  Numbers out;
  for (size_t i = 0; i < n; ++i) out.push_back((static_cast<double>(i) + 0.5) * step);
  return out;
}

Numbers column(const Json& rows, const char* name) {
  Numbers out;
  for (const Json& row : rows) out.push_back(row[name].is_number() ? row[name].get<double>() : NAN);
  return out;
}

constexpr const char* kNone = "\u2014";  // nothing was counted

std::string overview(const Json& f) {
  std::string out =
      "<h2>Layers</h2><table><tr><th>layer<th>experts<th>top-k<th>largest load, x mean<th>dropped<th>by "
      "input "
      "id<th>by next id<th>by predicted id<th>a chance of<th>deviation over experts, by token id<th>by "
      "position</tr>";
  for (const Json& layer : f["layers"]) {
    const auto load = layer["load"].get<Numbers>();
    const Json& s = layer["specialisation"];
    out += fmt::format(
        "<tr><td>{}<td>{}<td>{}<td>{:.2f}<td>{:.2f} "
        "%<td>{}<td>{}<td>{}<td>{:.3f}<td>{}<td>{}"
        "</tr>",
        layer["layer"].get<int64_t>(), layer["experts"].get<int64_t>(), layer["top_k"].get<int64_t>(),
        *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()),
        100 * layer["drop_rate"].get<double>(), number_text(s["input"], 3, kNone),
        number_text(s["next"], 3, kNone), number_text(s["predicted"], 3, kNone),
        1 / static_cast<double>(load.size()), number_text(layer["token_deviation"], 4, kNone),
        number_text(layer["position_deviation"], 4, kNone));
  }
  return out + "</table>";
}

std::string all_layers(const Json& f) {
  const auto length = f["sequence_length"].get<double>();
  std::vector<Curve> drops, saturations, distances;
  for (const Json& layer : f["layers"]) {
    const std::string name = fmt::format("layer {}", layer["layer"].get<int64_t>());
    const auto drop = layer["drop_by_position"].get<Numbers>();
    drops.push_back({name, counting(drop.size(), length / static_cast<double>(drop.size())), drop});
    const Json& at = layer["checkpoints"];
    saturations.push_back({name, column(at, "step"), column(at, "saturation")});
    distances.push_back({name, column(at, "step"), column(at, "token_distance")});
  }
  std::string out =
      "<h2>Dropped towards the end</h2>" + chart("share of choices that were dropped", "position", drops);
  if (f["checkpoints"].size() < 2) return out;
  out += "<h2>Learnt early</h2>" +
         chart("router saturation: choices that are the last checkpoint's", "step", saturations);
  return out + chart("distance of token ids' experts from the last checkpoint's", "step", distances);
}

// A token that is white space is seen as one.
std::string visible(const std::string& token) {
  std::string out;
  for (const char c : token) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out;
}

std::string one_layer(const Json& f, const Json& layer) {
  const auto sources = f["sources"].get<std::vector<std::string>>();
  const auto experts = layer["experts"].get<size_t>();
  std::string out = fmt::format("<h2>Layer {}</h2>", layer["layer"].get<int64_t>());
  std::vector<Numbers> load = {layer["load"].get<Numbers>()};
  std::vector<std::string> rows = {"all"};
  if (sources.size() > 1) {
    for (size_t i = 0; i < sources.size(); ++i) {
      rows.push_back(sources[i]);
      load.push_back(layer["load_by_source"][i].get<Numbers>());
    }
  }
  out += heat_map("share of the choices of each expert, by text", rows, load);
  if (layer["top_k"].get<int64_t>() > 1) {
    std::vector<std::string> names;
    for (size_t e = 0; e < experts; ++e) names.push_back(fmt::format("expert {}", e));
    out += heat_map("of the tokens of an expert, the share that also chose another", names,
                    layer["coactivation"].get<std::vector<Numbers>>());
  }
  out += "<table><tr><th>expert<th>load<th class=\"l\">tokens of which it has the largest share</tr>";
  for (size_t e = 0; e < experts; ++e) {
    std::string tokens;
    for (const Json& t : layer["own_tokens"][e]) {
      const std::string text =
          t.contains("text") ? t["text"].get<std::string>() : std::to_string(t["token"].get<int64_t>());
      tokens +=
          fmt::format("<code title=\"id {}, {} times\">{}</code> {:.0f} % ", t["token"].get<int64_t>(),
                      t["count"].get<int64_t>(), escaped(visible(text)), 100 * t["share"].get<double>());
    }
    out += fmt::format("<tr><td>{}<td>{:.3f}<td class=\"l\">{}</tr>", e, load[0][e], tokens);
  }
  return out + "</table>";
}

constexpr const char* kStyle =
    "body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#1f2328}"
    "table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em "
    ".7em;text-align:right;border-bottom:1px solid "
    "#d0d7de;vertical-align:top}th{font-weight:600}.l{text-align:left}svg{display:block;margin:.6em 0}"
    "svg text{font:11px system-ui,sans-serif;fill:#57606a}svg "
    ".t{font-weight:600;fill:#1f2328}.e{text-anchor:end}"
    ".m{text-anchor:middle}.g{stroke:#d0d7de}polyline{fill:none;stroke-width:1.6}code{background:#f0f2f4;"
    "padding:0 .3em;white-space:pre}p{max-width:60em}";

constexpr const char* kReading =
    "<p>By input, next and predicted id: of the first choices of a token id the largest share of one expert, "
    "averaged over ids (OLMoE's vocabulary specialisation). Deviation over experts: how unevenly the choices "
    "of "
    "one token id, or of one position, are spread; the former larger than the latter is OpenMoE's "
    "context-independent specialisation; \u2014: nothing was there often enough. Saturation and distances "
    "compare each checkpoint with the last "
    "one.</p>";

}  // namespace

std::string routing_page(const Json& f) {
  const std::string name = escaped(f["model"].get<std::string>());
  std::string out = fmt::format(
      "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Routing of {}</title><style>{}</style>"
      "<h1>Routing of {}</h1><p>{} tokens of {}; step {}.</p>{}",
      name, kStyle, name, f["tokens"].get<int64_t>(),
      escaped(fmt::format("{}", fmt::join(f["sources"].get<std::vector<std::string>>(), ", "))),
      f["checkpoints"].back()["step"].get<int64_t>(), kReading);
  out += overview(f) + all_layers(f);
  for (const Json& layer : f["layers"]) out += one_layer(f, layer);
  return out + "</html>\n";
}

}  // namespace ziggurat::analyse
