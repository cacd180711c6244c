// The pages of docs/api, one an entry of the package, out of its types and doc comments. What an entry exports stands
// in groups, which are the regions of the entry's file, in their order. Fails for an export without a description, and
// for a type that a signature names and the entry does not export.

import { fileURLToPath } from 'node:url';
import { Node, Project } from 'ts-morph';
import type {
  ClassDeclaration,
  ExportedDeclarations,
  FunctionDeclaration,
  InterfaceDeclaration,
  JSDocableNode,
  MethodDeclaration,
  ParameterDeclaration,
  SourceFile,
  TypeAliasDeclaration,
} from 'ts-morph';
import { readComment, splitDefault } from './comment.ts';
import { table } from './marks.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Export {
  readonly name: string;
  readonly node: ExportedDeclarations;
}

/** One page: `name` as it is imported, e.g. `smallmind/gguf`. */
export interface ApiPage {
  readonly name: string;
  readonly markdown: string;
}

/** A property of an interface, as its comment has it. */
export interface PropertyComment {
  readonly property: string;
  readonly text: string;
  /** What the comment says of the default; empty where it says nothing. */
  readonly fallback: string;
}

let project: Project | undefined;
const sources = (): Project => (project ??= new Project({ tsConfigFilePath: `${ROOT}tsconfig.build.json` }));

/** @param entries  name → source file, relative to the repository */
export function writeApi(entries: ReadonlyMap<string, string>): ApiPage[] {
  const problems: string[] = [];
  // Workers export nothing: they are entries only for bundlers to find.
  const documented = [...entries].flatMap(([name, path]) => {
    const file = sources().getSourceFileOrThrow(`${ROOT}${path}`);
    return file.getExportedDeclarations().size > 0 ? [{ name, file }] : [];
  });
  const names = documented.map(({ name }) => name);
  const pages = documented.map(({ name, file }) => ({ name, markdown: new Page(name, file, problems).write(names) }));
  if (problems.length > 0) throw new Error(`the public API is not documented:\n${problems.join('\n')}`);
  return pages;
}

/** What the comments of an interface say, inherited properties included. */
export function propertyComments(path: string, name: string): PropertyComment[] {
  const declaration = sources().getSourceFileOrThrow(`${ROOT}${path}`).getInterfaceOrThrow(name);
  return propertiesOf(declaration).map(({ name: property, node }) => {
    const { text } = readComment(node);
    return { property, text, fallback: splitDefault(text).fallback };
  });
}

interface Property {
  readonly name: string;
  readonly node: JSDocableNode & Node;
}

/** Own and inherited, in the order that they have there. */
function propertiesOf(declaration: InterfaceDeclaration): Property[] {
  return declaration
    .getType()
    .getProperties()
    .map((symbol) => ({ name: symbol.getName(), node: symbol.getDeclarations()[0]! }))
    .filter((property): property is Property => Node.isJSDocable(property.node));
}

class Page {
  readonly #name: string;
  readonly #file: SourceFile;
  readonly #exports: readonly Export[];
  readonly #problems: string[];

  constructor(name: string, file: SourceFile, problems: string[]) {
    this.#name = name;
    this.#file = file;
    this.#problems = problems;
    this.#exports = [...file.getExportedDeclarations()].map(([exported, nodes]) => ({
      name: exported,
      node: nodes[0]!,
    }));
  }

  write(pages: readonly string[]): string {
    const header = this.#file
      .getFullText()
      .split('\n\n')[0]!
      .replace(/^\/\/ ?/gm, '')
      .replace(/\s+/g, ' ');
    const groups = this.#groups();
    const contents = groups.map(([title, members]) => {
      const names = members.map(({ name }) => `[${name}](#${name.toLowerCase()})`).join(', ');
      return title === '' ? names : `- **${title}**: ${names}`;
    });
    const others = pages
      .filter((page) => page !== this.#name)
      .map((page) => `[${page}](${pageFile(page)})`)
      .join(', ');
    return [
      `# ${this.#name}`,
      `<!-- Written by npm run docs from ${this.#file.getFilePath().slice(ROOT.length)}: change the comments there. -->`,
      header,
      contents.join('\n'),
      ...groups.flatMap(([title, members]) => [
        ...(title === '' ? [] : [`## ${title}`]),
        ...members.flatMap((member) => this.#describe(member, title === '' ? '##' : '###')),
      ]),
      `Other entries: ${others}.`,
    ].join('\n\n');
  }

  /** Exports by the region of the file that they are written in. */
  #groups(): [title: string, members: Export[]][] {
    const groups = new Map<string, Export[]>();
    const regions = [...this.#file.getFullText().matchAll(/^\/\/ #region (.*)$/gm)];
    for (const region of regions) groups.set(region[1]!, []);
    const order = this.#positions();
    for (const each of this.#exports.toSorted((a, b) => order(a) - order(b))) {
      const region = regions.findLast(({ index }) => index < order(each))?.[1] ?? '';
      if (region === '' && regions.length > 0) this.#problems.push(`${this.#name}: ${each.name} is in no region`);
      groups.set(region, [...(groups.get(region) ?? []), each]);
    }
    return [...groups];
  }

  /** Where in the entry's file a name is exported, or declared. */
  #positions(): (each: Export) => number {
    const specifiers = this.#file.getExportDeclarations().flatMap((declaration) => declaration.getNamedExports());
    const places = new Map(
      specifiers.map((each) => [each.getAliasNode()?.getText() ?? each.getName(), each.getStart()]),
    );
    return ({ name, node }) => places.get(name) ?? node.getStart();
  }

  #describe({ name, node }: Export, level: string): string[] {
    const holder = Node.isVariableDeclaration(node) ? node.getVariableStatementOrThrow() : node;
    const comment = readComment(holder as JSDocableNode & Node);
    if (comment.text === '') this.#problems.push(`${this.#name}: ${name} has no description`);
    const heading = `${level} ${name}`;
    if (Node.isFunctionDeclaration(node)) return [heading, ...this.#describeCall(node, `function ${name}`)];
    const text = this.#link(comment.text, name);
    const examples = comment.examples.map((code) => `\`\`\`ts\n${code}\n\`\`\``);
    if (Node.isInterfaceDeclaration(node)) return [heading, text, ...this.#describeInterface(node), ...examples];
    if (Node.isClassDeclaration(node)) return [heading, ...this.#describeClass(node, text, level), ...examples];
    if (Node.isTypeAliasDeclaration(node)) return [heading, code(this.#alias(node)), text, ...examples];
    if (Node.isVariableDeclaration(node)) {
      const type = node.getTypeNode() ?? node.getInitializerOrThrow();
      this.#checkNames(node.getTypeNode()?.getText() ?? '', name);
      return [heading, code(`const ${name}: ${type.getText().replace(/ as const$/, '')}`), text, ...examples];
    }
    this.#problems.push(`${this.#name}: ${name} is a ${node.getKindName()}`);
    return [];
  }

  #describeCall(node: FunctionDeclaration | MethodDeclaration, opening: string): string[] {
    const comment = readComment(node);
    const parameters = node.getParameters();
    const result = node.getReturnTypeNode()?.getText() ?? 'void';
    const names = [...parameters.map((each) => each.getTypeNode()?.getText() ?? ''), result].join(' ');
    this.#checkNames(names, opening);
    const linked = [...this.#namesIn(names)].map((name) => this.#anchor(name));
    const described = parameters
      .filter((each) => comment.params.has(each.getName()))
      .map((each) => `- \`${each.getName()}\`: ${this.#link(comment.params.get(each.getName())!)}`);
    const returns = comment.returns === '' ? '' : `Returns ${this.#link(comment.returns)}.`;
    const throws = comment.throws === '' ? '' : `Throws ${this.#link(comment.throws)}.`;
    return [
      code(signature(opening, parameters, result)),
      this.#link(comment.text),
      described.join('\n'),
      returns,
      throws,
      linked.length > 0 ? `Types: ${linked.join(', ')}.` : '',
      ...comment.examples.map((program) => `\`\`\`ts\n${program}\n\`\`\``),
    ].filter((part) => part !== '');
  }

  #describeInterface(node: InterfaceDeclaration): string[] {
    const heritage = node.getExtends().map((each) => each.getText());
    // What the page describes anyway is not repeated.
    const isHere = heritage.every((text) => this.#namesIn(text).size === 1 && !text.startsWith('Omit<'));
    const own = propertiesOf(node).filter((each) => !isHere || each.node.getParent() === node);
    const rows = own.flatMap(({ name, node: property }) => this.#rows(name, property));
    const opening = heritage.length === 0 ? [] : [code(`interface ${node.getName()} extends ${heritage.join(', ')}`)];
    const also =
      isHere && heritage.length > 0
        ? [
            `Besides these, it has the properties of ${heritage.map((each) => this.#type(each, node.getName())).join(', ')}.`,
          ]
        : [];
    return [...opening, ...this.#table(rows), ...also];
  }

  #table(rows: readonly PropertyRow[]): string[] {
    if (rows.length === 0) return [];
    if (!rows.some(({ fallback }) => fallback !== '')) {
      return [table([['property', 'type', 'description'], ...rows.map(({ name, type, text }) => [name, type, text])])];
    }
    const cells = rows.map(({ name, type, fallback, text }) => [name, type, fallback, text]);
    return [table([['option', 'type', 'default', 'description'], ...cells])];
  }

  /** Of one property; of an object that is written out where it stands, of each of its own. */
  #rows(name: string, node: JSDocableNode & Node): PropertyRow[] {
    const comment = readComment(node);
    if (comment.isInternal) return [];
    if (Node.isMethodSignature(node)) {
      const type = `(${node.getParameters().map(parameterText).join(', ')}) => ${node.getReturnTypeNode()!.getText()}`;
      return [
        {
          name: `\`${name}${node.hasQuestionToken() ? '?' : ''}\``,
          type: this.#type(type, name),
          fallback: '',
          text: this.#cell(comment),
        },
      ];
    }
    if (!Node.isPropertySignature(node) && !Node.isGetAccessorDeclaration(node) && !Node.isPropertyDeclaration(node)) {
      this.#problems.push(`${this.#name}: ${name} is a ${node.getKindName()}`);
      return [];
    }
    const typeNode = Node.isGetAccessorDeclaration(node) ? node.getReturnTypeNodeOrThrow() : node.getTypeNodeOrThrow();
    const isOptional = !Node.isGetAccessorDeclaration(node) && node.hasQuestionToken();
    if (Node.isTypeLiteral(typeNode)) {
      const optional = isOptional ? '?' : '';
      return typeNode.getProperties().flatMap((each) => this.#rows(`${name}${optional}.${each.getName()}`, each));
    }
    const { rest, fallback } = splitDefault(comment.text);
    const type = this.#type(typeNode.getText(), name);
    const label = `\`${name}${isOptional ? '?' : ''}\``;
    const raises = comment.throws === '' ? '' : ` Throws ${this.#link(comment.throws)}.`;
    return [
      { name: label, type, fallback: this.#link(fallback), text: this.#link(rest).replaceAll('\n\n', ' ') + raises },
    ];
  }

  #cell({ text, throws }: { text: string; throws: string }): string {
    return this.#link(text).replaceAll('\n\n', ' ') + (throws === '' ? '' : ` Throws ${this.#link(throws)}.`);
  }

  #describeClass(node: ClassDeclaration, text: string, level: string): string[] {
    const isPublic = (member: JSDocableNode & { getName(): string }): boolean =>
      !member.getName().startsWith('#') && !readComment(member).isInternal;
    const heritage = [node.getExtends(), ...node.getImplements()].flatMap((each) => (each ? [each.getText()] : []));
    const word = node.getExtends() ? 'extends' : 'implements';
    const opening = `class ${node.getName()}${heritage.length > 0 ? ` ${word} ${heritage.join(', ')}` : ''}`;
    const members = [...node.getProperties(), ...node.getGetAccessors()].filter(isPublic);
    const rows = members.flatMap((each) => this.#rows(each.getName(), each));
    const methods = node.getMethods().filter((each) => isPublic(each) && /^\w+$/.test(each.getName()));
    for (const method of methods) {
      if (readComment(method).text === '') {
        this.#problems.push(`${this.#name}: ${node.getName()}.${method.getName()} has no description`);
      }
    }
    return [
      code(opening),
      text,
      ...this.#table(rows),
      ...methods.flatMap((each) => [
        `${level}# ${node.getName()}.${each.getName()}`,
        ...this.#describeCall(each, each.getName()),
      ]),
    ];
  }

  #alias(node: TypeAliasDeclaration): string {
    const text = node
      .getText()
      .replace(/^\/\*\*[^]*?\*\/\s*/, '')
      .replace(/^export /, '');
    // A list of names that is written down as data.
    if (text.includes('typeof')) {
      return `type ${node.getName()} = ${node
        .getType()
        .getUnionTypes()
        .map((each) => each.getText())
        .join(' | ')};`;
    }
    this.#checkNames(text, node.getName());
    return text;
  }

  #type(text: string, where: string): string {
    this.#checkNames(text, where);
    const inCode = `\`${text.replace(/\s+/g, ' ').replaceAll('|', '\\|')}\``;
    const names = [...this.#namesIn(text)];
    if (names.length === 1) return `[${inCode}](#${names[0]!.toLowerCase()})`;
    return names.length === 0 ? inCode : `${inCode} (${names.map((name) => this.#anchor(name)).join(', ')})`;
  }

  /** Names that the page describes. */
  #namesIn(text: string): Set<string> {
    const words = new Set(withoutStrings(text).match(/\b[A-Z]\w*/g));
    return new Set(this.#exports.map(({ name }) => name).filter((name) => words.has(name)));
  }

  /** A type of our own in a signature has to be on the page. */
  #checkNames(text: string, where: string): void {
    for (const word of new Set(withoutStrings(text).match(/\b[A-Z]\w+/g))) {
      if (this.#exports.some(({ name }) => name === word)) continue;
      const isOurs = sources()
        .getSourceFiles()
        .some((file) => file.getInterface(word) ?? file.getTypeAlias(word) ?? file.getClass(word));
      if (isOurs) this.#problems.push(`${this.#name}: ${where} names ${word}, which is not exported`);
    }
  }

  #anchor(name: string): string {
    return `[\`${name}\`](#${name.toLowerCase()})`;
  }

  /** Links `Name` and {Name} to where they are described, but for the place where the text stands. */
  #link(text: string, here = ''): string {
    const known = new Set(this.#exports.map(({ name }) => name));
    const linked = text.replace(/\bdocs\/([\w-]+)\.md\b/g, '[$1.md](../$1.md)');
    return linked.replace(/(?<!\[)`(\w+)`|\{([A-Z]\w+)\}/g, (all, quoted: string, thrown: string) => {
      const name = quoted ?? thrown;
      if (name === here || !known.has(name)) return quoted === undefined ? `\`${name}\`` : all;
      return this.#anchor(name);
    });
  }
}

interface PropertyRow {
  readonly name: string;
  readonly type: string;
  readonly fallback: string;
  readonly text: string;
}

export const pageFile = (name: string): string => `${name.split('/').at(-1)}.md`;

const withoutStrings = (text: string): string => text.replace(/'[^']*'/g, '');

/** Not `ts`, which marks programs that run. */
const code = (text: string): string => `\`\`\`typescript\n${text}\n\`\`\``;

function parameterText(parameter: ParameterDeclaration): string {
  const name = Node.isIdentifier(parameter.getNameNode()) ? parameter.getName() : 'options';
  return `${name}${parameter.isOptional() ? '?' : ''}: ${parameter.getTypeNode()?.getText() ?? 'unknown'}`;
}

const LINE_WIDTH = 100;

function signature(opening: string, parameters: readonly ParameterDeclaration[], result: string): string {
  const texts = parameters.map(parameterText);
  const line = `${opening}(${texts.join(', ')}): ${result};`;
  return line.length <= LINE_WIDTH ? line : `${opening}(\n${texts.map((each) => `  ${each},\n`).join('')}): ${result};`;
}
