//! `#[operator]`

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Error, Expr, ExprLit, Field, Fields, Ident, ItemStruct, Lit, LitInt, LitStr, Result, Token, Type, parenthesized,
};

/// What stands in the parentheses of `#[operator(…)]`.
#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    version: Option<LitStr>,
    keyed: bool,
    inputs: Option<LitInt>,
    outputs: Vec<LitStr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let word = input.call(Ident::parse_any)?;
            match word.to_string().as_str() {
                "name" => arguments.name = Some(value(input)?),
                "version" => arguments.version = Some(value(input)?),
                "keyed" => arguments.keyed = true,
                "inputs" => arguments.inputs = Some(value(input)?),
                "outputs" => {
                    let names;
                    parenthesized!(names in input);
                    arguments.outputs = Punctuated::<LitStr, Token![,]>::parse_terminated(&names)?.into_iter().collect();
                }
                other => {
                    let message = format!("`{other}` is not known here: name, version, keyed, inputs and outputs are");
                    return Err(Error::new(word.span(), message));
                }
            }
            comma(input)?;
        }
        Ok(arguments)
    }
}

fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn comma(input: ParseStream<'_>) -> Result<()> {
    if !input.is_empty() {
        input.parse::<Token![,]>()?;
    }
    Ok(())
}

#[derive(Default)]
struct StateArguments {
    name: Option<LitStr>,
    version: Option<LitInt>,
    ttl: Option<LitStr>,
    event_time: bool,
}

impl Parse for StateArguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let word = input.call(Ident::parse_any)?;
            match word.to_string().as_str() {
                "name" => arguments.name = Some(value(input)?),
                "version" => arguments.version = Some(value(input)?),
                "ttl" => arguments.ttl = Some(value(input)?),
                "event_time" => arguments.event_time = true,
                other => {
                    let message = format!("`{other}` is not known here: name, version, ttl and event_time are");
                    return Err(Error::new(word.span(), message));
                }
            }
            comma(input)?;
        }
        Ok(arguments)
    }
}

/// `#[config(…)]` and `#[metric(…)]`
#[derive(Default)]
struct NamedArguments {
    name: Option<LitStr>,
    default: Option<Expr>,
}

impl Parse for NamedArguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let word = input.call(Ident::parse_any)?;
            match word.to_string().as_str() {
                "name" => arguments.name = Some(value(input)?),
                "default" => arguments.default = Some(value(input)?),
                other => return Err(Error::new(word.span(), format!("`{other}` is not known here: name and default are"))),
            }
            comma(input)?;
        }
        Ok(arguments)
    }
}

/// The arguments of `#[NAME]` or `#[NAME(…)]`, which is taken off the field.
fn take<T: Parse + Default>(field: &mut Field, name: &str) -> Result<Option<T>> {
    let Some(at) = field.attrs.iter().position(|attribute| attribute.path().is_ident(name)) else { return Ok(None) };
    let attribute: Attribute = field.attrs.remove(at);
    match &attribute.meta {
        syn::Meta::Path(_) => Ok(Some(T::default())),
        _ => attribute.parse_args().map(Some),
    }
}

/// The last word of a type's path: `ValueState` of `tidegate_sdk::ValueState<u64>`.
fn type_name(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

/// `"1h"`, `"90s"`, `"500ms"` in milliseconds.
fn milliseconds(text: &LitStr) -> Result<u64> {
    let wrong = || Error::new(text.span(), "a time is a whole number and a unit: ms, s, m, h or d");
    let value = text.value();
    let digits = value.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let unit: u64 = match &value[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: u64 = value[..digits].parse().map_err(|_| wrong())?;
    match number.checked_mul(unit) {
        Some(ms) if ms > 0 => Ok(ms),
        _ => Err(wrong()),
    }
}

fn constant_name(port: &LitStr) -> Result<Ident> {
    let name: String = port.value().chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect();
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if good {
        Ok(Ident::new(&name, port.span()))
    } else {
        Err(Error::new(port.span(), "a port is named in letters, digits, - and _"))
    }
}

pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let mut item: ItemStruct = syn::parse2(item)?;
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, "an operator has no generics: a component exports one"));
    }
    let operator = item.ident.clone();

    let mut opens = Vec::new();
    let (mut states, mut state_types, mut state_options) = (Vec::new(), Vec::new(), Vec::new());
    let mut metrics = Vec::new();
    let is_unit = matches!(item.fields, Fields::Unit);
    match &mut item.fields {
        Fields::Unit => {}
        Fields::Unnamed(fields) => return Err(Error::new_spanned(fields, "an operator's fields have names")),
        Fields::Named(fields) => {
            for field in &mut fields.named {
                let ident = field.ident.clone().expect("named fields");
                let own_name = LitStr::new(&ident.unraw().to_string(), ident.span());
                let ty = field.ty.clone();
                let kind = type_name(&ty).unwrap_or_default();
                let state: Option<StateArguments> = take(field, "state")?;
                let config: Option<NamedArguments> = take(field, "config")?;
                let metric: Option<NamedArguments> = take(field, "metric")?;
                if state.is_some() || matches!(kind.as_str(), "ValueState" | "MapState" | "ListState" | "ReducingState") {
                    if !arguments.keyed {
                        return Err(Error::new(ident.span(), "state belongs to a key: say `keyed` in #[operator(…)]"));
                    }
                    let StateArguments { name, version, ttl, event_time } = state.unwrap_or_default();
                    let name = name.unwrap_or(own_name);
                    let version = version.unwrap_or_else(|| LitInt::new("1", ident.span()));
                    let ttl = match &ttl {
                        Some(ttl) => {
                            let ms = milliseconds(ttl)?;
                            quote!(Some(#ms))
                        }
                        None if event_time => {
                            return Err(Error::new(ident.span(), "`event_time` says what `ttl` goes by: give one"));
                        }
                        None => quote!(None),
                    };
                    let domain = if event_time { format_ident!("EventTime") } else { format_ident!("ProcessingTime") };
                    opens.push(quote!(#ident: <#ty as StateField>::open(#name)));
                    state_options.push(quote! {
                        StateOptions { name: #name, schema_version: #version, ttl_ms: #ttl, ttl_domain: TimeDomain::#domain }
                    });
                    states.push(ident);
                    state_types.push(ty);
                } else if metric.is_some() || matches!(kind.as_str(), "Counter" | "Gauge" | "Histogram") {
                    let name = metric.unwrap_or_default().name.unwrap_or(own_name);
                    opens.push(quote!(#ident: <#ty as MetricField>::open(#name)));
                    metrics.push(ident);
                } else if let Some(NamedArguments { name, default }) = config {
                    let name = name.unwrap_or(own_name);
                    opens.push(match default {
                        // A text literal may stand for a `String`; numbers must keep their inferred type.
                        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => {
                            quote!(#ident: context.config_or(#name, ::core::convert::Into::into(#text))?)
                        }
                        Some(default) => quote!(#ident: context.config_or(#name, #default)?),
                        None => quote!(#ident: context.config(#name)?),
                    });
                } else {
                    opens.push(quote!(#ident: ::core::default::Default::default()));
                }
            }
        }
    }

    let name = arguments.name.map_or_else(|| quote!(env!("CARGO_PKG_NAME")), |name| quote!(#name));
    let version = arguments.version.map_or_else(|| quote!(env!("CARGO_PKG_VERSION")), |version| quote!(#version));
    let inputs = arguments.inputs.map_or_else(|| quote!(1), |inputs| quote!(#inputs));
    let keyed = arguments.keyed;
    let outputs = if arguments.outputs.is_empty() { vec![LitStr::new("main", operator.span())] } else { arguments.outputs };
    let mut ports = Vec::new();
    for (number, port) in outputs.iter().enumerate() {
        let (constant, number) = (constant_name(port)?, number as u32);
        let doc = format!("Output {number}, `{}`.", port.value());
        ports.push(quote! {
            #[doc = #doc]
            #[allow(dead_code)]
            pub const #constant: ::tidegate_sdk::Port = ::tidegate_sdk::Port(#number);
        });
    }
    let opened = if is_unit { quote!(Self) } else { quote!(Self { #(#opens,)* }) };

    Ok(quote! {
        #item

        impl #operator {
            #(#ports)*
        }

        const _: () = {
            #[allow(unused_imports)]
            use ::tidegate_sdk::__private::{Descriptor, MetricField, Parts, StateField, StateOptions, TimeDomain};

            impl Parts for #operator {
                fn describe() -> Descriptor {
                    Descriptor {
                        name: #name.to_owned(),
                        version: #version.to_owned(),
                        inputs: #inputs,
                        keyed: #keyed,
                        outputs: vec![#(#outputs.to_owned()),*],
                        states: vec![#(<#state_types as StateField>::declare(&#state_options)),*],
                    }
                }

                #[allow(unused_variables)]
                fn open(context: &::tidegate_sdk::Context) -> ::core::result::Result<Self, ::tidegate_sdk::StartError> {
                    Ok(#opened)
                }

                #[inline]
                #[allow(unused_variables)]
                fn begin(&mut self, keys: u32) {
                    #(StateField::begin(&mut self.#states, keys);)*
                    #(MetricField::begin(&mut self.#metrics);)*
                }

                #[allow(unused_variables)]
                fn undo(&mut self, record: u32) {
                    #(StateField::undo(&mut self.#states, record);)*
                    #(MetricField::undo(&mut self.#metrics, record);)*
                }

                #[inline]
                fn finish(&mut self) {
                    #(StateField::finish(&mut self.#states);)*
                    #(MetricField::finish(&mut self.#metrics);)*
                }
            }
        };

        ::tidegate_sdk::__export_operator!(#operator);
    })
}
